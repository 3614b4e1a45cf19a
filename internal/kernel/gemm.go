package kernel

import (
	"unsafe"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/mat"
)

// Gemm sets dst = a b + bias, with a [m, k], b [k, n], dst [m, n] and bias [n],
// added to every row, or nil for none.
//
// Each element is the sum over k in order, begun with the bias: a row's result
// depends neither on the other rows nor on how many there are, to the bit, so a
// token at a time and all tokens at once agree. dst must not overlap a or bias.
//
// It costs 2 m n k flop.
func Gemm(dst, a blas32.General, b *Matrix, bias []float32) {
	CheckMatrix("asm: Gemm", "a", a, a.Rows, b.rows)
	checkGemm("asm: Gemm", dst, a, a.Rows, b, bias)
	newProduct(dst, b, bias).multiply(a.Data, a.Stride, 1, a.Rows)
}

// GemmT is Gemm with the transpose of a, which is [k, m].
func GemmT(dst, a blas32.General, b *Matrix, bias []float32) {
	CheckMatrix("kernel: GemmT", "a", a, b.rows, a.Cols)
	checkGemm("kernel: GemmT", dst, a, a.Cols, b, bias)
	newProduct(dst, b, bias).multiply(a.Data, 1, a.Stride, a.Cols)
}

// GemmAdd adds a b to dst.
func GemmAdd(dst, a blas32.General, b *Matrix) {
	CheckMatrix("asm: GemmAdd", "a", a, a.Rows, b.rows)
	checkGemm("asm: GemmAdd", dst, a, a.Rows, b, nil)
	p := newProduct(dst, b, nil)
	p.add = true
	p.multiply(a.Data, a.Stride, 1, a.Rows)
}

// GemmTAdd adds the product of the transpose of a, which is [k, m], and b to dst.
func GemmTAdd(dst, a blas32.General, b *Matrix) {
	CheckMatrix("kernel: GemmTAdd", "a", a, b.rows, a.Cols)
	checkGemm("kernel: GemmTAdd", dst, a, a.Cols, b, nil)
	p := newProduct(dst, b, nil)
	p.add = true
	p.multiply(a.Data, 1, a.Stride, a.Cols)
}

// Gemv sets dst = x b + bias for one row x [k], dst [n]: a matrix times a
// vector, for b packed by NewMatrixT. It is bound by reading b, once.
func Gemv(dst, x []float32, b *Matrix, bias []float32) {
	CheckLen("asm: Gemv", "x", len(x), b.rows)
	d := blas32.General{Rows: 1, Cols: len(dst), Stride: len(dst), Data: dst}
	checkGemm("asm: Gemv", d, blas32.General{Rows: 1, Cols: len(x), Stride: len(x), Data: x}, 1, b, bias)
	newProduct(d, b, bias).multiply(x, len(x), 1, 1)
}

func checkGemm(op string, dst, a blas32.General, rows int, b *Matrix, bias []float32) {
	CheckMatrix(op, "dst", dst, rows, b.cols)
	if bias != nil {
		CheckLen(op, "bias", len(bias), b.cols)
	}
	if mat.Overlap(dst, a) || mat.OverlapVectors(Extent(dst), bias) {
		Panicf("%s: dst overlaps an input", op)
	}
}

// Blocks. None of them changes a sum's order: a partial sum waits in dst, in
// float32 as it was in the register.
const (
	blockK = 512 // rows of b to a kernel call; a tile of a stays in L1
	wideK  = 512 // bytes of a column of b to a call that reads four panels of it
)

// blockBytes is how much of b a block has, to stay in the second cache while all of a goes by.
func blockBytes() int { return isa.SecondCache() / 8 * 3 }

// zeros is where a product without a bias begins.
var zeros [4 * maxPanelCols]float32

// product is one call of Gemm.
type product struct {
	dst       blas32.General
	b         *Matrix
	bias      []float32
	add       bool
	a         []float32
	aRow, aAt int // strides of a, from row to row and along k
	row0, k0  int // of a[0]
}

func newProduct(dst blas32.General, b *Matrix, bias []float32) product {
	return product{dst: dst, b: b, bias: bias}
}

func (p product) multiply(a []float32, aRow, aAt, rows int) {
	p.a, p.aRow, p.aAt = a, aRow, aAt
	if rows == 0 || p.b.cols == 0 {
		return
	}
	switch {
	case p.b.rows == 0:
		p.empty(rows)
	case p.b.format.parts() > 0:
		p.split(rows)
	case p.b.tier == isa.Generic:
		p.generic(rows)
	case p.aAt == 1 && p.aRow%crowdedStride == 0 && rows >= p.b.fullRows():
		p.multiplyCopied(rows)
	default:
		p.blocks(rows, nil)
	}
}

// Rows of a that stand a multiple of crowdedStride apart compete for the same
// lines of the first cache. A tile's rows are then copied for all panels but the
// first, which brings them near.
const (
	crowdedStride = 512 // float32
	copyStride    = blockK + 16
)

func (p *product) multiplyCopied(rows int) {
	var strip [maxTileRows * copyStride]float32
	p.blocks(rows, strip[:])
}

// blocks goes over the blocks of b, and copies rows of a where it is given memory
// for a tile's.
func (p *product) blocks(rows int, strip []float32) {
	k, panels := p.b.rows, p.b.panels()
	for k0 := 0; k0 < k; k0 += blockK {
		kn := min(blockK, k-k0)
		perBlock := max(4, blockBytes()/(kn*p.b.PanelCols()*p.b.format.bytes()))
		for p0 := 0; p0 < panels; p0 += perBlock {
			p1 := min(p0+perBlock, panels)
			row := 0
			for _, height := range [...]int{p.b.fullRows(), p.b.halfRows(), 4, 2, 1} {
				for ; rows-row >= height; row += height {
					if strip == nil || height < p.b.fullRows() || p1-p0 < 3 {
						p.strip(row, height, k0, kn, p0, p1)
						continue
					}
					p.strip(row, height, k0, kn, p0, p0+1)
					for i := range height {
						copy(strip[i*copyStride:][:kn], p.a[(row+i)*p.aRow+k0:])
					}
					q := *p
					q.a, q.aRow, q.row0, q.k0 = strip, copyStride, row, k0
					q.strip(row, height, k0, kn, p0+1, p1)
				}
			}
		}
	}
}

// empty is the product over no k.
func (p *product) empty(rows int) {
	if p.add {
		return
	}
	for i := range rows {
		row := p.dst.Data[i*p.dst.Stride:][:p.dst.Cols]
		clear(row)
		copy(row, p.bias)
	}
}

// strip multiplies height rows of a by panels p0 to p1.
func (p *product) strip(row, height, k0, kn, p0, p1 int) {
	width := p.b.PanelCols()
	for panel := p0; panel < p1; {
		// With few rows a kernel takes several whole panels, so that enough sums
		// are under way and enough of b is being read.
		several := 1
		if height <= 2 {
			several = 4 / height
		}
		if (panel+several)*width > p.b.cols || panel+several > p1 {
			several = 1
		}
		if several > 1 {
			rows := wideK / p.b.format.bytes()
			for k := 0; k < kn; k += rows {
				p.tile(row, height, panel, several, k0+k, min(rows, kn-k))
			}
		} else {
			p.tile(row, height, panel, 1, k0, kn)
		}
		panel += several
	}
}

// tile is one kernel call: rows x panels of dst over kn of k.
func (p *product) tile(row, rows, panel, panels, k0, kn int) {
	width := p.b.PanelCols()
	col := panel * width
	c, cStride := p.dst.Data[row*p.dst.Stride+col:], p.dst.Stride
	start, startStride := zeros[:], 0
	switch {
	case k0 > 0 || p.add:
		start, startStride = c, cStride
	case p.bias != nil:
		start = p.bias[col:]
	}
	n := p.b.cols - col
	if n >= panels*width {
		p.kernel(row, rows, panel, panels, k0, kn, start, startStride, c, cStride)
		return
	}
	// The last panel is not whole: go through a tile of our own.
	var buf [maxTileRows * maxPanelCols]float32
	t := buf[:]
	for i := range rows {
		copy(t[i*width:][:n], start[i*startStride:])
	}
	p.kernel(row, rows, panel, 1, k0, kn, t, width, t, width)
	for i := range rows {
		copy(c[i*cStride:][:n], t[i*width:])
	}
}

func (p *product) kernel(row, rows, panel, panels, k0, kn int, start []float32, startStride int, c []float32, cStride int) {
	m := p.b
	a := p.a[(row-p.row0)*p.aRow+(k0-p.k0)*p.aAt:]
	size := m.format.bytes()
	bPanel := m.panelBytes()
	at := panel*bPanel + k0*m.PanelCols()*size
	var scale *float32
	if m.format == Int8 {
		scale = &m.scale[panel*m.PanelCols()]
	}
	if rows == m.fullRows() {
		rows = 0
	}
	gemmSIMD(m.tier, m.format, rows, panels, kn, unsafe.SliceData(a), 4*p.aRow, 4*p.aAt, &m.data[at], bPanel,
		&start[0], 4*startStride, &c[0], 4*cStride, scale)
}
