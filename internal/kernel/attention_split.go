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
//
// Without a unit products take so long that they ask stop every millisecond or two, where it is
// not nil, and leave the rest undone once it says so.
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
func (t SplitTile) Scores(s blas32.General, strip, k []float32, dim int, stop func() bool) {
	const op = "kernel: SplitTile.Scores"
	CheckMatrix(op, "s", s, s.Rows, s.Cols/splitCols*splitCols)
	CheckAtLeast(op, "strip", len(strip), t.Strip(dim))
	CheckAtLeast(op, "k", len(k), t.Keys(s.Cols, dim))
	if s.Rows == 0 || s.Cols == 0 {
		return
	}
	t.multiply(s, halves(strip), t.row(dim), halves(k), t.size(dim), dim, false, stop)
}

// Weigh sets o[i] = factor[i] o[i] + sum over j of p[i][j] v[j], with p [rows, keys], keys a
// multiple of 32, v packed by PackValues for size keys, of which these begin at from, a multiple
// of 32, and o [rows, cols], cols a multiple of Panel. p is lost: its parts stand there, or in
// strip, which has memory for a strip of it, where there is no room.
func (t SplitTile) Weigh(o, p blas32.General, strip, v []float32, size, from int, factor []float32, stop func() bool) {
	t.checkWeigh("kernel: SplitTile.Weigh", o, p, v, size, from, factor)
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
	parts, row := t.splitWeights(p, strip)
	t.multiply(o, parts, row, halves(v)[from/splitStep*t.parts*splitPart:], t.size(size), p.Cols, true, stop)
}

func (t SplitTile) checkWeigh(op string, o, p blas32.General, v []float32, size, from int, factor []float32) {
	CheckMatrix(op, "p", p, p.Rows, p.Cols/splitStep*splitStep)
	CheckMatrix(op, "o", o, p.Rows, o.Cols/splitCols*splitCols)
	CheckLen(op, "factor", len(factor), p.Rows)
	CheckAtLeast(op, "size", t.Panels(size)*splitStep, from/splitStep*splitStep+p.Cols)
	CheckAtLeast(op, "v", len(v), t.Values(size, o.Cols))
}

// splitWeights splits weights where they stand, or into strip, and returns them and how far apart
// their rows are.
func (t SplitTile) splitWeights(p blas32.General, strip []float32) (parts []uint16, row int) {
	row = 2 * p.Stride
	if t.parts > 2 {
		CheckAtLeast("kernel: SplitTile.Weigh", "strip", len(strip), t.Strip(p.Cols))
		row = t.row(p.Cols)
	} else {
		strip = p.Data
	}
	parts = halves(strip)
	unitNow().splitStrip(t.parts, p.Rows, p.Cols, p.Data, p.Stride, 1, parts, row)
	return parts, row
}

// multiply adds the products of a strip of k elements and the panels of c's columns to c, or
// sets it.
func (t SplitTile) multiply(c blas32.General, strip []uint16, row int, b []uint16, bPanel, k int, add bool, stop func() bool) {
	u, call := unitNow(), splitCall
	if !u {
		call = 1
	}
	for s := 0; s < k; s += splitSteps * splitStep {
		steps := min(splitSteps, (k-s+splitStep-1)/splitStep)
		at := s / splitStep * t.parts
		for p := 0; p < c.Cols/splitCols; p += call {
			if bool(!u) && stop != nil && stop() {
				return
			}
			u.addSplit(t.parts, c.Rows, steps, min(call, c.Cols/splitCols-p), strip[at*splitStep:], row, b[p*bPanel+at*splitPart:], bPanel, c.Data[p*splitCols:], c.Stride, add || s > 0)
		}
	}
	if k == 0 && !add {
		for i := range c.Rows {
			clear(c.Data[i*c.Stride:][:c.Cols])
		}
	}
}

// WeighSome is Weigh for values that are not all finite: one whose weight is 0 does not count.
// What is finite adds up to the bits that Weigh gives.
func (t SplitTile) WeighSome(o, p blas32.General, strip, v []float32, size, from int, factor []float32, stop func() bool) {
	t.checkWeigh("kernel: SplitTile.WeighSome", o, p, v, size, from, factor)
	ScaleRows(o, factor, o)
	if o.Cols == 0 || p.Cols == 0 || p.Rows == 0 {
		return
	}
	var clean [mostParts * splitPart]uint16
	step := func(panel, s int) []uint16 {
		return clean[:copy(clean[:t.parts*splitPart], halves(v)[panel*t.size(size)+(from/splitStep+s)*t.parts*splitPart:])]
	}
	panels, steps := o.Cols/splitCols, p.Cols/splitStep
	for panel := range panels {
		for s := range steps {
			t.eachWild(step(panel, s), func(key, col int, x float32) {
				for i := range p.Rows {
					if w := p.Data[i*p.Stride+s*splitStep+key]; w != 0 {
						o.Data[i*o.Stride+panel*splitCols+col] += float32(w * x)
					}
				}
			})
		}
	}
	u := unitNow()
	parts, row := t.splitWeights(p, strip)
	for panel := range panels {
		if bool(!u) && stop != nil && stop() {
			return
		}
		for s := range steps {
			b := step(panel, s)
			t.eachWild(b, func(key, col int, _ float32) {
				for q := range t.parts {
					b[splitOf(key, col)+q*splitPart] = 0
				}
			})
			u.addSplit(t.parts, p.Rows, 1, 1, parts[s*t.parts*splitStep:], row, b, 0, o.Data[panel*splitCols:], o.Stride, true)
		}
	}
}

// splitOf is where a first part stands in a step of a panel.
func splitOf(k, col int) int { return col/16*splitTile + (k/2*16+col%16)*2 + k%2 }

// eachWild calls f with the values of a step of a panel that are not finite.
func (t SplitTile) eachWild(b []uint16, f func(key, col int, x float32)) {
	for i, v := range b[:splitPart] {
		if scalar.BFloat16Finite(v) {
			continue
		}
		var parts [mostParts]uint16
		for q := range t.parts {
			parts[q] = b[i+q*splitPart]
		}
		pair, tile := i%splitTile/2, i/splitTile
		f(pair/16*2+i%2, tile*16+pair%16, scalar.Join(parts[:t.parts]))
	}
}
