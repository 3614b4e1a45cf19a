package kernel

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa"
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

// copyPanel copies columns from col on of x, as many as a panel of a tier other than the
// generic has, to a panel's rows.
func copyPanel(tier isa.Tier, panel []float32, x blas32.General, col int) {
	const most = 256 // rows to a kernel call
	w := sizesOf[tier].panelCols
	for i := 0; i < x.Rows; i += most {
		copyPanelSIMD(tier, min(most, x.Rows-i), &panel[i*w], &x.Data[i*x.Stride+col], 4*x.Stride)
	}
}
