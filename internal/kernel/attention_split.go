package kernel

import (
	"math"
	"unsafe"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/kernel/scalar"
)

// SplitTile has the two products of exact attention on one tile in parts of bfloat16, as
// Matrix has those of BFloat16x3 and its like: scores of up to 32 query rows and the weighted
// sum of values. What stands between them, AttentionTile.Weights, stays in float32.
//
// Queries and weights are split into strips, keys and values into panels of 32 keys or 32
// columns. Packed memory is float32 only by name. A row's results depend neither on the other
// rows nor on how many there are, to the bit, and are the same with a unit and without. The
// zero value has no parts.
type SplitTile struct{ parts int }

// NewSplitTile returns the tile of a format in parts, or the zero value for another.
func NewSplitTile(f Format) SplitTile { return SplitTile{f.parts()} }

// Split tells whether there are parts.
func (t SplitTile) Split() bool { return t.parts > 0 }

// Rows returns how many query rows are done at once.
func (t SplitTile) Rows() int { return splitHigh }

// Panel returns the width of a panel: keys in a panel of keys, columns in one of values.
func (t SplitTile) Panel() int { return splitCols }

// Panels returns how many panels n keys or columns take.
func (t SplitTile) Panels(n int) int { return (n + splitCols - 1) / splitCols }

// size is how many parts a panel has, or a strip, over k elements of each column or row.
func (t SplitTile) size(k int) int { return (k + splitStep - 1) / splitStep * t.parts * splitPart }

// row is how many parts a row of a strip has.
func (t SplitTile) row(k int) int { return t.size(k) / splitHigh }

// Strip returns the memory of a strip of rows of k elements, in float32.
func (t SplitTile) Strip(k int) int { return t.size(k) / 2 }

// Keys returns the memory of so many keys, in float32.
func (t SplitTile) Keys(keys, dim int) int { return t.Panels(keys) * t.size(dim) / 2 }

// Values returns the memory of so many values, in float32.
func (t SplitTile) Values(keys, cols int) int { return t.Panels(cols) * t.size(keys) / 2 }

func halves(x []float32) []uint16 {
	return unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(x))), 2*len(x))
}

// SplitRows writes rows of x, Rows at the most, into a strip.
func (t SplitTile) SplitRows(strip []float32, x blas32.General) {
	const op = "kernel: SplitTile.SplitRows"
	CheckMatrix(op, "x", x, x.Rows, x.Cols)
	CheckAtLeast(op, "strip", len(strip), t.Strip(x.Cols))
	if x.Rows > splitHigh {
		Panicf("%s: %d rows, want at most %d", op, x.Rows, splitHigh)
	}
	if x.Rows > 0 {
		unitNow().splitStrip(t.parts, x.Rows, x.Cols, x.Data, x.Stride, 1, halves(strip), t.row(x.Cols))
	}
}

// packSteps is how many steps of 32 rows are split on the way into panels.
const packSteps = 2

// packStrip has a strip of them.
type packStrip [splitHigh * packRow]uint16

// packRow is a row of it.
const packRow = packSteps * mostParts * splitStep

// PackKeys writes keys k [n, dim] as the ones from at on into panels. Keys come in order, each
// panel from its first one on: what a panel has after the last is 0.
func (t SplitTile) PackKeys(dst []float32, at int, k blas32.General) {
	const op = "kernel: SplitTile.PackKeys"
	CheckMatrix(op, "k", k, k.Rows, k.Cols)
	CheckAtLeast(op, "dst", len(dst), t.Keys(at+k.Rows, k.Cols))
	u, size, half := unitNow(), t.size(k.Cols), halves(dst)
	var strip packStrip
	for i, n := 0, 0; i < k.Rows; i += n {
		c := (at + i) % splitCols
		n = min(splitCols-c, k.Rows-i)
		panel := half[(at+i)/splitCols*size:][:size]
		if c == 0 && n < splitCols {
			clear(panel)
		}
		const cols = packSteps * splitStep
		for d := 0; d < k.Cols; d += cols {
			dim := min(cols, k.Cols-d)
			u.splitStrip(t.parts, n, dim, k.Data[i*k.Stride+d:], k.Stride, 1, strip[:], packRow)
			part := panel[d/splitStep*t.parts*splitPart:]
			for p := range (dim + splitStep - 1) / splitStep * t.parts {
				turnSplit(u, part[p*splitPart:], strip[p*splitStep:], c, n)
			}
		}
	}
}

// turnSplit writes a part of a step of n rows as columns from c on of a panel's.
func turnSplit(u unit, panel, strip []uint16, c, n int) {
	if u && n == splitCols {
		turnSplitUnit(panel, strip)
		turnSplitUnit(panel[splitTile:], strip[16*packRow:])
		return
	}
	for i := range n {
		col := panel[(c+i)/16*splitTile+(c+i)%16*2:]
		for j, v := range strip[i*packRow:][:splitStep] {
			col[j/2*32+j%2] = v
		}
	}
}

// PackValues writes values v [n, cols] as the ones from at on into panels for size keys, and
// tells whether all of them are finite in bfloat16. Values come in order, every 32 from their
// first one on: what there is after the last is 0, and so are columns.
func (t SplitTile) PackValues(dst []float32, size, at int, v blas32.General) (finite bool) {
	const op = "kernel: SplitTile.PackValues"
	CheckMatrix(op, "v", v, v.Rows, v.Cols)
	CheckAtLeast(op, "size", size, at+v.Rows)
	CheckAtLeast(op, "dst", len(dst), t.Values(size, v.Cols))
	u, half := unitNow(), halves(dst)
	var strip packStrip
	finite = true
	for i, n := 0, 0; i < v.Rows; i += n {
		c := (at + i) % splitStep
		n = min(splitStep-c, v.Rows-i)
		step := (at + i) / splitStep * t.parts * splitPart
		for col := 0; col < v.Cols; col += splitCols {
			part := half[col/splitCols*t.size(size)+step:][:t.parts*splitPart]
			x, cols := v.Data[i*v.Stride+col:], min(splitCols, v.Cols-col)
			if n == splitStep && cols == splitCols {
				for tile := range 2 {
					ok := u.splitPairs(t.parts, splitStep/2, x[16*tile:], v.Stride, part[tile*splitTile:])
					finite = finite && ok
				}
				continue
			}
			if c == 0 {
				clear(part)
			}
			u.splitStrip(t.parts, n, cols, x, v.Stride, 1, strip[:], packRow)
			for p := range t.parts {
				ok := placeSplit(part[p*splitPart:], strip[p*splitStep:], c, n, cols)
				finite = finite && ok
			}
		}
	}
	return finite
}

// placeSplit writes a part of n rows as those from c on of a step of a panel.
func placeSplit(panel, strip []uint16, c, n, cols int) (finite bool) {
	finite = true
	for i := range n {
		row := panel[(c+i)/2*32+(c+i)%2:]
		for j, v := range strip[i*packRow:][:cols] {
			row[j/16*splitTile+j%16*2] = v
			finite = finite && scalar.BFloat16Finite(v)
		}
	}
	return finite
}

// Scores sets s = q k, with q [rows, dim] split by SplitRows, k packed by PackKeys and s
// [rows, keys], keys a multiple of Panel.
func (t SplitTile) Scores(s blas32.General, strip, k []float32, dim int) {
	const op = "kernel: SplitTile.Scores"
	CheckMatrix(op, "s", s, s.Rows, s.Cols/splitCols*splitCols)
	CheckAtLeast(op, "strip", len(strip), t.Strip(dim))
	CheckAtLeast(op, "k", len(k), t.Keys(s.Cols, dim))
	if s.Rows == 0 || s.Cols == 0 {
		return
	}
	t.multiply(s, halves(strip), t.row(dim), halves(k), t.size(dim), dim, false)
}

// Weigh sets o[i] = factor[i] o[i] + sum over j of p[i][j] v[j], with p [rows, keys], keys a
// multiple of 32, v packed by PackValues for size keys, of which these begin at from, a multiple
// of 32, and o [rows, cols], cols a multiple of Panel. p is lost: its parts stand there, or in
// strip, which has memory for a strip of it, where there is no room.
func (t SplitTile) Weigh(o, p blas32.General, strip, v []float32, size, from int, factor []float32) {
	const op = "kernel: SplitTile.Weigh"
	CheckMatrix(op, "p", p, p.Rows, p.Cols/splitStep*splitStep)
	CheckMatrix(op, "o", o, p.Rows, o.Cols/splitCols*splitCols)
	CheckLen(op, "factor", len(factor), p.Rows)
	CheckAtLeast(op, "size", t.Panels(size)*splitStep, from/splitStep*splitStep+p.Cols)
	CheckAtLeast(op, "v", len(v), t.Values(size, o.Cols))
	other := uint32(0) // without a branch
	for _, f := range factor {
		other |= math.Float32bits(f) ^ math.Float32bits(1)
	}
	if other != 0 {
		ScaleRows(o, factor, o)
	}
	if o.Cols == 0 || p.Cols == 0 || p.Rows == 0 {
		return
	}
	row := 2 * p.Stride
	if t.parts > 2 {
		CheckAtLeast(op, "strip", len(strip), t.Strip(p.Cols))
		row = t.row(p.Cols)
	} else {
		strip = p.Data
	}
	unitNow().splitStrip(t.parts, p.Rows, p.Cols, p.Data, p.Stride, 1, halves(strip), row)
	t.multiply(o, halves(strip), row, halves(v)[from/splitStep*t.parts*splitPart:], t.size(size), p.Cols, true)
}

// multiply adds the products of a strip of k elements and the panels of c's columns to c, or
// sets it.
func (t SplitTile) multiply(c blas32.General, strip []uint16, row int, b []uint16, bPanel, k int, add bool) {
	u := unitNow()
	for s := 0; s < k; s += splitSteps * splitStep {
		steps := min(splitSteps, (k-s+splitStep-1)/splitStep)
		at := s / splitStep * t.parts
		for p := 0; p < c.Cols/splitCols; p += splitCall {
			u.addSplit(t.parts, c.Rows, steps, min(splitCall, c.Cols/splitCols-p), strip[at*splitStep:], row, b[p*bPanel+at*splitPart:], bPanel, c.Data[p*splitCols:], c.Stride, add || s > 0)
		}
	}
	if k == 0 && !add {
		for i := range c.Rows {
			clear(c.Data[i*c.Stride:][:c.Cols])
		}
	}
}

// WeighSome is Weigh for values that are not all finite: one whose weight is 0 does not count.
// It takes weights as they are and values as the sums of their parts.
func (t SplitTile) WeighSome(o, p blas32.General, v []float32, size, from int, factor []float32) {
	half, bPanel := halves(v), t.size(size)
	var parts [mostParts]uint16
	for i := range p.Rows {
		row := o.Data[i*o.Stride:][:o.Cols]
		scaleBy(row, factor[i])
		for j, x := range p.Data[i*p.Stride:][:p.Cols] {
			if x == 0 {
				continue
			}
			key := from + j
			for c := range row {
				at := c/splitCols*bPanel + key/splitStep*t.parts*splitPart + c%splitCols/16*splitTile + (key%splitStep/2*16+c%16)*2 + key%2
				for q := range t.parts {
					parts[q] = half[at+q*splitPart]
				}
				row[c] += float32(x * scalar.Join(parts[:t.parts]))
			}
		}
	}
}
