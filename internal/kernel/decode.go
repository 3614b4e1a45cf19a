package kernel

import (
	"unsafe"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/kernel/scalar"
)

// DecodeTile is the work of attention on a tile of few query rows, where reading
// keys and values is what takes time: they are read where they stand, in the
// type they are stored in, once for all rows. AttentionTile is for many rows.
//
// Int8 is multiplied in float32; IntegerTile rounds queries and weights and multiplies integers.
//
// A row's results depend neither on the other rows nor on how many there are,
// nor on how the keys are divided into calls, to the bit. The tier is captured
// when the value is made; the zero value is the generic tier.
type DecodeTile struct{ tier isa.Tier }

// NewDecodeTile returns the tile of the active tier.
func NewDecodeTile() DecodeTile { return DecodeTile{isa.Active()} }

// Unit is what the width of keys and values must be a multiple of.
func (t DecodeTile) Unit() int {
	if t.tier == isa.Generic {
		return 1
	}
	return decodeUnit
}

// Strided is a matrix stored in a Format: row i begins at element i*Stride of
// Float32, Half (for BFloat16 and Float16) or Int8.
type Strided struct {
	Format             Format
	Rows, Cols, Stride int
	Float32            []float32
	Half               []uint16
	Int8               []int8
}

// From returns the rows from a row on.
func (m Strided) From(row int) Strided {
	at := row * m.Stride
	m.Rows -= row
	switch m.Format {
	case Float32:
		m.Float32 = m.Float32[min(at, len(m.Float32)):]
	case Int8:
		m.Int8 = m.Int8[min(at, len(m.Int8)):]
	default:
		m.Half = m.Half[min(at, len(m.Half)):]
	}
	return m
}

// Columns returns columns from ... to.
func (m Strided) Columns(from, to int) Strided {
	m.Cols = to - from
	switch m.Format {
	case Float32:
		m.Float32 = m.Float32[min(from, len(m.Float32)):]
	case Int8:
		m.Int8 = m.Int8[min(from, len(m.Int8)):]
	default:
		m.Half = m.Half[min(from, len(m.Half)):]
	}
	return m
}

func (m *Strided) check(op, name string) {
	n := len(m.Half)
	switch m.Format {
	case Float32:
		n = len(m.Float32)
	case Int8:
		n = len(m.Int8)
	}
	if m.Rows < 0 || m.Cols < 0 || m.Stride < m.Cols || m.Rows > 0 && (n < m.Cols || m.Rows > 1 && (n-m.Cols)/(m.Rows-1) < m.Stride) {
		Panicf("%s: %s is %d x %d with stride %d but has only %d elements", op, name, m.Rows, m.Cols, m.Stride, n)
	}
}

// At returns where element i of the data stands.
func (m *Strided) At(i int) *byte {
	switch m.Format {
	case Float32:
		return (*byte)(unsafe.Pointer(&m.Float32[i]))
	case Int8:
		return (*byte)(unsafe.Pointer(&m.Int8[i]))
	}
	return (*byte)(unsafe.Pointer(&m.Half[i]))
}

// Widen sets dst to len(dst) elements of a row, from a column on. Int8 elements
// are integers; their scale is the caller's.
func (m *Strided) Widen(dst []float32, row, col int) {
	at := row*m.Stride + col
	switch m.Format {
	case Float32:
		copy(dst, m.Float32[at:at+len(dst)])
	case BFloat16:
		for i, v := range m.Half[at:][:len(dst)] {
			dst[i] = scalar.BFloat16Of(v)
		}
	case Float16:
		for i, v := range m.Half[at:][:len(dst)] {
			dst[i] = scalar.Float16Of(v)
		}
	case Int8:
		for i, v := range m.Int8[at:][:len(dst)] {
			dst[i] = float32(v)
		}
	}
}

// together returns how many of the rows that are left a kernel takes at once.
func (t DecodeTile) together(left int, scores bool) int {
	switch {
	case left >= 4 && !(scores && sizesOf[t.tier].decodeRows < 4):
		return 4
	case left >= 2:
		return 2
	}
	return 1
}

// PackQueries writes rows of q in the order in which Scores reads them; dst has
// as many elements as q.
func (t DecodeTile) PackQueries(dst []float32, q blas32.General) {
	const op = "kernel: DecodeTile.PackQueries"
	CheckMatrix(op, "q", q, q.Rows, q.Cols/t.Unit()*t.Unit())
	CheckLen(op, "dst", len(dst), q.Rows*q.Cols)
	lanes := sizesOf[t.tier].lanes
	for i := 0; i < q.Rows; {
		n := t.together(q.Rows-i, true)
		if t.tier == isa.Generic {
			n = 1
			copy(dst[i*q.Cols:][:q.Cols], q.Data[i*q.Stride:])
		} else {
			set := dst[i*q.Cols:]
			for d := 0; d < q.Cols; d += lanes {
				for r := range n {
					copy(set[d*n+r*lanes:][:lanes], q.Data[(i+r)*q.Stride+d:])
				}
			}
		}
		i += n
	}
}

// Scores sets s[i][j] = q[i].k[j], with q packed by PackQueries and s [rows,
// k.Rows]; Int8 elements count as integers. s must not overlap the others. While it
// goes over the keys it prefetches as many bytes from next on, which the caller will
// read soon, in four streams side by side; next may be nil.
func (t DecodeTile) Scores(s blas32.General, q []float32, k Strided, next *byte) {
	const op = "kernel: DecodeTile.Scores"
	k.check(op, "k")
	CheckMatrix(op, "s", s, s.Rows, k.Rows)
	CheckLen(op, "q", len(q), s.Rows*k.Cols)
	if k.Cols%t.Unit() != 0 {
		Panicf("%s: %d columns, want a multiple of %d", op, k.Cols, t.Unit())
	}
	if s.Rows == 0 || k.Rows == 0 {
		return
	}
	if k.Cols == 0 {
		for i := range s.Rows {
			clear(s.Data[i*s.Stride:][:s.Cols])
		}
		return
	}
	if t.tier == isa.Generic {
		decodeScoresGeneric(s, q, k)
		return
	}
	row := k.Stride * k.Format.bytes()
	if next == nil {
		next = k.At(0)
	}
	perCall := max(1, 1<<17/(4*k.Cols)) // blocks
	for i := 0; i < s.Rows; {
		n := t.together(s.Rows-i, true)
		queries := &q[i*k.Cols]
		blocks := k.Rows / decodeKeys
		stream := blocks * k.Cols * k.Format.bytes()
		for b := 0; b < blocks; b += perCall {
			decodeScoresSIMD(t.tier, k.Format, n, k.Cols, min(perCall, blocks-b), queries, k.At(decodeKeys*b*k.Stride), row, next, stream, &s.Data[i*s.Stride+decodeKeys*b], 4*s.Stride)
		}
		switch rest := k.Rows % decodeKeys; {
		case rest > 0 && blocks > 0: // the last decodeKeys again
			j := k.Rows - decodeKeys
			decodeScoresSIMD(t.tier, k.Format, n, k.Cols, 1, queries, k.At(j*k.Stride), row, next, 0, &s.Data[i*s.Stride+j], 4*s.Stride)
		case rest > 0: // the same key decodeKeys times
			var same [4 * decodeKeys]float32
			for j := range rest {
				decodeScoresSIMD(t.tier, k.Format, n, k.Cols, 1, queries, k.At(j*k.Stride), 0, next, 0, &same[0], 4*decodeKeys)
				for r := range n {
					s.Data[(i+r)*s.Stride+j] = same[decodeKeys*r]
				}
			}
		}
		i += n
	}
}

// Values sets o[i] = factor[i] o[i] + sum over j of p[i][j] v[j], added in the
// order of j, with p [rows, v.Rows] and o [rows, v.Cols]; Int8 elements count as
// integers. o must not overlap the others; next is as in Scores.
func (t DecodeTile) Values(o, p blas32.General, v Strided, factor []float32, next *byte) {
	const op = "kernel: DecodeTile.Values"
	v.check(op, "v")
	CheckMatrix(op, "p", p, p.Rows, v.Rows)
	CheckMatrix(op, "o", o, p.Rows, v.Cols)
	CheckLen(op, "factor", len(factor), p.Rows)
	if v.Cols%t.Unit() != 0 {
		Panicf("%s: %d columns, want a multiple of %d", op, v.Cols, t.Unit())
	}
	if p.Rows == 0 || v.Cols == 0 {
		return
	}
	if v.Rows == 0 || t.tier == isa.Generic {
		decodeValuesGeneric(o, p, v, factor)
		return
	}
	const perCall = 1 << 11 // keys; the next call goes on from the sums of this one
	for j := 0; j < v.Rows; j += perCall {
		n := min(perCall, v.Rows-j)
		t.valueColumns(o, p, v, j, n, factor, next)
		factor = ones[:]
	}
}

// ones are factors that change nothing, of the rows that a kernel takes.
var ones = [4]float32{1, 1, 1, 1}

func (t DecodeTile) valueColumns(o, p blas32.General, v Strided, from, keys int, factor []float32, next *byte) {
	row := v.Stride * v.Format.bytes()
	if next == nil {
		next = v.At(0)
	}
	wide := sizesOf[t.tier].decodeCols
	for i := 0; i < p.Rows; {
		n := t.together(p.Rows-i, false)
		f := &factor[0]
		if from == 0 {
			f = &factor[i]
		}
		for c := 0; c < v.Cols; {
			x, y, z := &p.Data[i*p.Stride+from], v.At(from*v.Stride+c), &o.Data[i*o.Stride+c]
			next := (*byte)(unsafe.Add(unsafe.Pointer(next), c*keys*v.Format.bytes())) // a share for each
			if v.Cols-c >= wide {
				decodeValuesSIMD(t.tier, v.Format, n, keys, x, 4*p.Stride, y, row, next, 64*keys, z, 4*o.Stride, f)
				c += wide
			} else {
				decodeValuesLastSIMD(t.tier, v.Format, n, keys, x, 4*p.Stride, y, row, next, 64*keys, z, 4*o.Stride, f)
				c += decodeUnit
			}
		}
		i += n
	}
}
