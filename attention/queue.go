package attention

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state"
)

// queue is rows of keys and values, numbered from the sequence's first, of which
// the oldest are dropped.
type queue struct {
	kCols, vCols int
	first        int64 // number of the first row held
	rows         int
	skip         int // rows of memory before it
	k, v         []float32
}

func newQueue(kCols, vCols int) queue { return queue{kCols: kCols, vCols: vCols} }

// end is the number after the last row's.
func (q *queue) end() int64 { return q.first + int64(q.rows) }

// K and V return the rows held.
func (q *queue) K() blas32.General {
	return mat.Of(q.k[q.skip*q.kCols:], q.rows, q.kCols)
}
func (q *queue) V() blas32.General {
	return mat.Of(q.v[q.skip*q.vCols:], q.rows, q.vCols)
}

func (q *queue) row(i int64) (k, v []float32) {
	at := q.skip + int(i-q.first)
	return q.k[at*q.kCols:][:q.kCols], q.v[at*q.vCols:][:q.vCols]
}

// capacity is how many rows there is memory for.
func (q *queue) capacity() int { return len(q.k) / q.kCols }

// addressable tells whether memory for so many rows can be asked for at all.
func (q *queue) addressable(rows int64) bool {
	return rows <= math.MaxInt>>3/int64(max(q.kCols, q.vCols)) && rows < 1<<40
}

// extend makes room for n more rows at the end, of no known contents. Rows move
// where an eighth of them has been dropped; otherwise the memory grows.
func (q *queue) extend(n int) {
	all := q.rows + n
	if q.skip+all > q.capacity() {
		if all > q.capacity() || q.skip < q.rows/8 {
			q.reserve(all + all/4)
		}
		copy(q.k, q.k[q.skip*q.kCols:][:q.rows*q.kCols])
		copy(q.v, q.v[q.skip*q.vCols:][:q.rows*q.vCols])
		q.skip = 0
	}
	q.rows = all
}

// reserve makes memory for n rows.
func (q *queue) reserve(n int) {
	if n <= q.capacity() {
		return
	}
	k, v := make([]float32, n*q.kCols), make([]float32, n*q.vCols)
	copy(k, q.k)
	copy(v, q.v)
	q.k, q.v = k, v
}

// append adds rows of k and v.
func (q *queue) append(k, v blas32.General) {
	at := q.end()
	q.extend(k.Rows)
	for i := range k.Rows {
		toK, toV := q.row(at + int64(i))
		copy(toK, row(k, i))
		copy(toV, row(v, i))
	}
}

// drop forgets the rows before number to.
func (q *queue) drop(to int64) {
	if to >= q.end() {
		q.first, q.rows, q.skip = to, 0, 0
	} else if to > q.first {
		n := int(to - q.first)
		q.first, q.rows, q.skip = to, q.rows-n, q.skip+n
	}
}

// truncate forgets the rows from number to on.
func (q *queue) truncate(to int64) {
	if to < q.end() {
		q.rows = int(max(to-q.first, 0))
	}
}

func (q *queue) clear() { q.first, q.rows, q.skip = 0, 0, 0 }

func (q *queue) clone() queue {
	c := *q
	c.k, c.v = append([]float32(nil), q.k...), append([]float32(nil), q.v...)
	return c
}

func (q *queue) bytes() int64 { return 4 * int64(len(q.k)+len(q.v)) }

// writeTo writes what the queue holds.
func (q *queue) writeTo(s *state.Writer) {
	s.Ints(q.first)
	s.Floats(q.K().Data)
	s.Floats(q.V().Data)
}

// readFrom reads a queue that ends at end and begins at most at needed.
func (q *queue) readFrom(s *state.Reader, needed, end int64) {
	q.first = s.Int()
	rows := end - q.first
	if s.Err() == nil && (q.first < 0 || q.first > needed || rows > math.MaxInt32/int64(max(q.kCols, q.vCols))) {
		s.Fail("it holds rows from %d to %d", q.first, end)
	}
	if s.Err() != nil {
		return
	}
	q.k, q.v = s.Floats(rows*int64(q.kCols)), s.Floats(rows*int64(q.vCols))
	q.rows = int(rows)
}
