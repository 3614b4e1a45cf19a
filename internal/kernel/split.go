package kernel

import (
	"unsafe"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/kernel/scalar"
)

// Products in bfloat16. Elements of a and b are split into two or three bfloat16 whose sum
// is nearly the element (scalar.Split), and of the products of the parts those are added
// up that matter: a matrix unit multiplies bfloat16 so much faster than float32 that three
// or six products are still faster than one. One part is bfloat16 as such.
//
// Parts stand as a matrix unit reads them. A step is 32 of k, a tile 16 rows of 32 parts.
// Of a, a strip of up to 32 rows is split at a time, in place where there are one or two parts:
//
//	strip  [row][step][part][k of the step]
//	panel  [step][part][tile of 16 columns][pair of k][column of the tile][k of the pair]
//
// An element of dst has the same order of sums everywhere, and so the same bits with and
// without a unit (addSplit).

const (
	splitStep  = 32 // of k, filled up with zeros
	splitCols  = 32 // columns of a panel: two tiles
	splitHigh  = 32 // rows of a strip: two tiles
	splitTile  = 16 * splitStep
	splitPart  = 2 * splitTile // of a step, in a panel
	splitSteps = 8             // steps of a to a strip, which stays in the first cache
	splitCall  = 8             // panels to a kernel call
	mostParts  = 3
	mostRow    = (splitSteps*mostParts + 1) * splitStep
)

// splitRow is how far apart rows of a strip stand: a line of the cache more than they have,
// since lines far apart by a power of two compete for the same places.
func splitRow(parts, steps int) int { return (steps*parts + 1) * splitStep }

// splitTerms has the products that are added up, as the parts of a and b, by how many
// parts there are. Those left out are at most 2^-18 of a product (with two parts) and
// 2^-26 (with three); one part leaves 2^-8 of each factor.
var splitTerms = [...][][2]int{
	1: {{0, 0}},
	2: {{0, 0}, {1, 0}, {0, 1}},
	3: {{0, 0}, {1, 0}, {2, 0}, {1, 1}, {0, 1}, {0, 2}},
}

// PackIn packs b, or its transpose, as BFloat16x3, x6 or x1, or as Pack does.
func (m *Matrix) PackIn(format Format, b blas32.General, transposed bool) {
	if format < BFloat16x3 || format > BFloat16x1 {
		m.pack(format, b, transposed)
		return
	}
	CheckMatrix("asm: Matrix", "b", b, b.Rows, b.Cols)
	m.size(format, b, transposed)
	// Columns are panels of keys, rows those of values (SplitTile).
	if tile := NewSplitTile(format); transposed {
		tile.PackKeys(m.float32(), 0, b)
	} else {
		tile.PackValues(m.float32(), b.Rows, 0, b)
	}
}

// steps is how many steps k has.
func (m *Matrix) steps() int { return (m.rows + splitStep - 1) / splitStep }

// splitAt returns where the first part of element (i, j) is; the others follow splitPart apart.
func (m *Matrix) splitAt(i, j int) int {
	return (j/splitCols*m.steps()+i/splitStep)*m.format.parts()*splitPart + splitOf(i%splitStep, j%splitCols)
}

// joined is the sum of the parts of element (i, j).
func (m *Matrix) joined(i, j int) float32 {
	var parts [mostParts]uint16
	half, at, n := m.half(), m.splitAt(i, j), m.format.parts()
	for l := range n {
		parts[l] = half[at+l*splitPart]
	}
	return scalar.Join(parts[:n])
}

// split is a product with a b in parts.
func (p *product) split(rows int) {
	if !p.add {
		p.empty(rows)
	}
	const line = 32 // parts of a line of the cache
	var memory [splitHigh*mostRow + line]uint16
	skip := -int(uintptr(unsafe.Pointer(&memory))) & 63 / 2
	strip := memory[skip:][:splitHigh*mostRow]

	u := unitNow()
	m := p.b
	steps, panels, step := m.steps(), m.panels(), m.format.parts()*splitPart
	perBlock := max(1, blockBytes()/(2*min(splitSteps, steps)*step))
	for p0 := 0; p0 < panels; p0 += perBlock {
		p1 := min(p0+perBlock, panels)
		for s0 := 0; s0 < steps; s0 += splitSteps {
			sn := min(splitSteps, steps-s0)
			for row := 0; row < rows; row += splitHigh {
				high := min(splitHigh, rows-row)
				p.splitStrip(u, strip, row, high, s0, sn)
				for panel := p0; panel < p1; panel += splitCall {
					p.splitTiles(u, strip, row, high, s0, sn, panel, min(panel+splitCall, p1))
				}
			}
		}
	}
}

// splitStrip splits rows of a, over sn steps from s0 on.
func (p *product) splitStrip(u unit, strip []uint16, row, high, s0, sn int) {
	parts := p.b.format.parts()
	k0 := s0 * splitStep
	k := min(sn*splitStep, p.b.rows-k0)
	u.splitStrip(parts, high, k, p.a[row*p.aRow+k0*p.aAt:], p.aRow, p.aAt, strip, splitRow(parts, sn))
}

// splitStrip splits rows of k elements, aRow and aAt apart, into a strip whose rows are row apart.
func (u unit) splitStrip(parts, rows, k int, a []float32, aRow, aAt int, strip []uint16, row int) {
	whole := 0 // steps that can be read where they are
	if aAt == 1 {
		whole = k / splitStep
		for s := 0; s < whole; s += splitSteps {
			u.splitRows(parts, rows, min(splitSteps, whole-s), a[s*splitStep:], aRow, strip[s*parts*splitStep:], row)
		}
	}
	for s := whole; s*splitStep < k; s++ {
		for i := range rows {
			var x [splitStep]float32
			from := a[i*aRow+s*splitStep*aAt:]
			for l := range min(splitStep, k-s*splitStep) {
				x[l] = from[l*aAt]
			}
			u.splitRows(parts, 1, 1, x[:], splitStep, strip[i*row+s*parts*splitStep:], row)
		}
	}
}

// splitTiles adds the products of a strip and panels from p0 up to p1 to dst.
func (p *product) splitTiles(u unit, strip []uint16, row, high, s0, sn, p0, p1 int) {
	m := p.b
	parts := m.format.parts()
	bPanel := m.steps() * parts * splitPart
	half := m.half()
	c, cRow := p.dst.Data[row*p.dst.Stride:], p.dst.Stride
	b := func(panel int) []uint16 { return half[panel*bPanel+s0*parts*splitPart:] }
	whole := min(p1, m.cols/splitCols)
	if p0 < whole {
		u.addSplit(parts, high, sn, whole-p0, strip, splitRow(parts, sn), b(p0), bPanel, c[p0*splitCols:], cRow, true)
	}
	if whole == p1 {
		return
	}
	// The last panel is not whole: go through a tile of our own.
	var t [splitHigh * splitCols]float32
	col := whole * splitCols
	n := m.cols - col
	for i := range high {
		copy(t[i*splitCols:][:n], c[i*cRow+col:])
	}
	u.addSplit(parts, high, sn, 1, strip, splitRow(parts, sn), b(whole), bPanel, t[:], splitCols, true)
	for i := range high {
		copy(c[i*cRow+col:][:n], t[i*splitCols:])
	}
}
