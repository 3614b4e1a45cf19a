package kernel

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/mat"
)

// Panels are how a Float32 Matrix can be computed where it stands, instead of
// elsewhere and then packed: Reshape gives it its size, and Panel the places of
// its elements. A tier's panels have PanelCols columns, the last perhaps fewer.

// PanelCols returns the width of a panel in the active tier.
func PanelCols() int {
	m := Matrix{tier: isa.Active()}
	return m.PanelCols()
}

// Reshape makes m a Float32 matrix of rows x cols for the active tier. Its
// elements are unspecified. It allocates only when m's memory is too small.
func (m *Matrix) Reshape(rows, cols int) {
	if rows < 0 || cols < 0 {
		Panicf("kernel: Matrix.Reshape: %d x %d", rows, cols)
	}
	m.tier, m.format, m.rows, m.cols = isa.Active(), Float32, rows, cols
	m.data = aligned(m.data, m.panels()*m.panelBytes())
	m.scale = m.scale[:0]
	if w := m.PanelCols(); cols%w != 0 {
		clear(m.float32()[(m.panels()-1)*rows*w:])
	}
}

// Panel returns panel i of a Float32 matrix, columns from i*PanelCols
// on, as a matrix that shares its elements.
func (m *Matrix) Panel(i int) blas32.General {
	if m.format != Float32 || i < 0 || i >= m.panels() {
		Panicf("kernel: Matrix.Panel: panel %d of %d, format %v", i, m.panels(), m.format)
	}
	w := m.PanelCols()
	return blas32.General{Rows: m.rows, Cols: min(w, m.cols-i*w), Stride: w, Data: m.float32()[i*m.rows*w:][:m.rows*w]}
}

// PanelRows returns rows from up to to of panel i as a matrix that shares its
// elements, to be a right operand itself.
func (m *Matrix) PanelRows(i, from, to int) Matrix {
	p := m.Panel(i)
	if from < 0 || to < from || to > m.rows {
		Panicf("kernel: Matrix.PanelRows: rows %d to %d of %d", from, to, m.rows)
	}
	size := m.panelBytes() / max(m.rows, 1)
	at := i * m.panelBytes()
	return Matrix{tier: m.tier, rows: to - from, cols: p.Cols, data: m.data[at+from*size : at+to*size]}
}

// TileRows returns how many rows the main kernel of a product takes at once, in the active
// tier: products of a multiple of it are the fastest.
func TileRows() int { return sizesOf[isa.Active()].tileRows }

// PanelProduct sets dst [m, n] to start plus a times rows from up to to of panel i of b. a is
// [m, to-from] or, with transposed, [to-from, m]; start is [m, n], or dst itself, or the zero
// matrix. It is Gemm, GemmAdd or GemmTAdd with PanelRows, for products so small that looking
// whether dst overlaps an input would cost: it must not.
func PanelProduct(dst, start, a blas32.General, b *Matrix, i, from, to int, transposed bool) {
	const op = "kernel: PanelProduct"
	rows, k, aRow, aAt := a.Rows, a.Cols, a.Stride, 1
	if transposed {
		rows, k, aRow, aAt = a.Cols, a.Rows, 1, a.Stride
	}
	width := b.PanelCols()
	given := start.Data != nil
	if b.tier == isa.Generic || b.format != Float32 || rows < 1 || k < 1 || k > blockK || (i+1)*width > b.cols {
		right := b.PanelRows(i, from, to)
		CheckMatrix(op, "a", a, a.Rows, a.Cols)
		CheckMatrix(op, "dst", dst, rows, right.cols)
		CheckLen(op, "a", k, to-from)
		if given && !mat.Same(dst, start) {
			CheckMatrix(op, "start", start, rows, right.cols)
			mat.Copy(dst, start)
		}
		p := product{dst: dst, b: &right, add: given}
		p.multiply(a.Data, aRow, aAt, rows)
		return
	}
	if i < 0 || from < 0 || k != to-from || to > b.rows || dst.Rows != rows || dst.Cols != width || dst.Stride < width || given && (start.Rows != rows || start.Cols != width) {
		Panicf("%s: a is %d x %d, dst %d x %d, start %d x %d, for rows %d to %d of panel %d of a %d x %d matrix", op, a.Rows, a.Cols, dst.Rows, dst.Cols, start.Rows, start.Cols, from, to, i, b.rows, b.cols)
	}
	if !given {
		start = blas32.General{Data: zeros[:]}
	}
	// The last elements, so that the kernels stay within.
	_, _, _ = a.Data[(rows-1)*aRow+(k-1)*aAt], dst.Data[(rows-1)*dst.Stride+width-1], start.Data[(rows-1)*start.Stride+width-1]
	right := &b.data[(i*b.rows+from)*width*4]
	_ = b.data[(i*b.rows+to)*width*4-1]
	for row, height := 0, 0; row < rows; row += height {
		kind := 0
		switch left := rows - row; {
		case left >= b.fullRows():
			height = b.fullRows()
		case left >= b.halfRows():
			height, kind = b.halfRows(), b.halfRows()
		case left >= 4:
			height, kind = 4, 4
		case left >= 2:
			height, kind = 2, 2
		default:
			height, kind = 1, 1
		}
		gemmSIMD(b.tier, Float32, kind, 1, k, &a.Data[row*aRow], 4*aRow, 4*aAt, right, 0, &start.Data[row*start.Stride], 4*start.Stride, &dst.Data[row*dst.Stride], 4*dst.Stride, nil)
	}
}

// copyPanel copies columns from col on of x, as many as a panel of a tier other than the
// generic has, to a panel's rows.
func copyPanel(tier isa.Tier, panel []float32, x blas32.General, col int) {
	const most = 256 // rows to a kernel call
	w := sizesOf[tier].panelCols
	for i := 0; i < x.Rows; i += most {
		copyPanelSIMD(tier, min(most, x.Rows-i), &panel[i*w], &x.Data[i*x.Stride+col], 4*x.Stride)
	}
}
