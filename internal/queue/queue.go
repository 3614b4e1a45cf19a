// Package queue keeps rows of keys and values of which the oldest are dropped. It is to
// go when CCA, Landmark and Meta keep theirs in an attention.State.
package queue

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state"
)

// Queue is rows of keys and values, numbered from the sequence's first, of which
// the oldest are dropped.
type Queue struct {
	kCols, vCols int
	First        int64 // number of the first row held
	Rows         int
	skip         int // rows of memory before it
	k, v         []float32
}

// New returns an empty queue.
func New(kCols, vCols int) Queue { return Queue{kCols: kCols, vCols: vCols} }

// End is the number after the last row's.
func (q *Queue) End() int64 { return q.First + int64(q.Rows) }

// K and V return the rows held.
func (q *Queue) K() blas32.General {
	return mat.Of(q.k[q.skip*q.kCols:], q.Rows, q.kCols)
}
func (q *Queue) V() blas32.General {
	return mat.Of(q.v[q.skip*q.vCols:], q.Rows, q.vCols)
}

func (q *Queue) Row(i int64) (k, v []float32) {
	at := q.skip + int(i-q.First)
	return q.k[at*q.kCols:][:q.kCols], q.v[at*q.vCols:][:q.vCols]
}

// Capacity is how many rows there is memory for.
func (q *Queue) Capacity() int { return len(q.k) / q.kCols }

// Addressable tells whether memory for so many rows can be asked for at all.
func (q *Queue) Addressable(rows int64) bool {
	return rows <= math.MaxInt>>3/int64(max(q.kCols, q.vCols)) && rows < 1<<40
}

// Extend makes room for n more rows at the end, of no known contents. Rows move
// where an eighth of them has been dropped; otherwise the memory grows.
func (q *Queue) Extend(n int) {
	all := q.Rows + n
	if q.skip+all > q.Capacity() {
		if all > q.Capacity() || q.skip < q.Rows/8 {
			q.Reserve(all + all/4)
		}
		copy(q.k, q.k[q.skip*q.kCols:][:q.Rows*q.kCols])
		copy(q.v, q.v[q.skip*q.vCols:][:q.Rows*q.vCols])
		q.skip = 0
	}
	q.Rows = all
}

// Reserve makes memory for n rows.
func (q *Queue) Reserve(n int) {
	if n <= q.Capacity() {
		return
	}
	k, v := make([]float32, n*q.kCols), make([]float32, n*q.vCols)
	copy(k, q.k)
	copy(v, q.v)
	q.k, q.v = k, v
}

// Append adds rows of k and v.
func (q *Queue) Append(k, v blas32.General) {
	at := q.End()
	q.Extend(k.Rows)
	for i := range k.Rows {
		toK, toV := q.Row(at + int64(i))
		copy(toK, mat.Row(k, i))
		copy(toV, mat.Row(v, i))
	}
}

// Drop forgets the rows before number to.
func (q *Queue) Drop(to int64) {
	if to >= q.End() {
		q.First, q.Rows, q.skip = to, 0, 0
	} else if to > q.First {
		n := int(to - q.First)
		q.First, q.Rows, q.skip = to, q.Rows-n, q.skip+n
	}
}

// Truncate forgets the rows from number to on.
func (q *Queue) Truncate(to int64) {
	if to < q.End() {
		q.Rows = int(max(to-q.First, 0))
	}
}

func (q *Queue) Clear() { q.First, q.Rows, q.skip = 0, 0, 0 }

func (q *Queue) Clone() Queue {
	c := *q
	c.k, c.v = append([]float32(nil), q.k...), append([]float32(nil), q.v...)
	return c
}

func (q *Queue) Bytes() int64 { return 4 * int64(len(q.k)+len(q.v)) }

// WriteTo writes what the queue holds.
func (q *Queue) WriteTo(s *state.Writer) {
	s.Ints(q.First)
	s.Floats(q.K().Data)
	s.Floats(q.V().Data)
}

// ReadFrom reads a queue that ends at end and begins at most at needed.
func (q *Queue) ReadFrom(s *state.Reader, needed, end int64) {
	q.First = s.Int()
	rows := end - q.First
	if s.Err() == nil && (q.First < 0 || q.First > needed || rows > math.MaxInt32/int64(max(q.kCols, q.vCols))) {
		s.Fail("it holds rows from %d to %d", q.First, end)
	}
	if s.Err() != nil {
		return
	}
	q.k, q.v = s.Floats(rows*int64(q.kCols)), s.Floats(rows*int64(q.vCols))
	q.Rows = int(rows)
}
