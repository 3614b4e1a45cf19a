package kernel

import (
	"math"
	"unsafe"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/kernel/scalar"
)

// Matrix is the right operand of Gemm: k x n, packed once into the order in
// which the kernels read it. Columns stand in panels as wide as a kernel's tile,
// the last one filled up with zeros; a panel is stored row after row.
//
// The order depends on the tier, which is captured when the matrix is made.
// Arithmetic is float32 whatever the format: elements are converted as they are
// read, and the result is that of the float32 matrix At describes.
type Matrix struct {
	tier   isa.Tier
	format Format
	rows   int
	cols   int
	data   []byte    // panels of panelBytes each
	scale  []float32 // Int8: one for each column, filled up with zeros
}

// NewMatrix returns b packed.
func NewMatrix(format Format, b blas32.General) *Matrix {
	m := new(Matrix)
	m.Pack(format, b)
	return m
}

// Pack packs b in place of the old elements, for the active tier. It allocates
// only when m's memory is too small, and for the scales of Int8.
func (m *Matrix) Pack(format Format, b blas32.General) { m.pack(format, b, false) }

// PackT is Pack with the transpose of b.
func (m *Matrix) PackT(format Format, b blas32.General) { m.pack(format, b, true) }

// Set is Pack as Float32.
func (m *Matrix) Set(b blas32.General) { m.pack(Float32, b, false) }

// SetT is Set with the transpose of b.
func (m *Matrix) SetT(b blas32.General) { m.pack(Float32, b, true) }

// Dims returns k and n.
func (m *Matrix) Dims() (rows, cols int) { return m.rows, m.cols }

// PanelCols returns the width of a panel.
func (m *Matrix) PanelCols() int {
	if m.format.parts() > 0 {
		return splitCols
	}
	return sizesOf[m.tier].panelCols
}

// Columns returns columns from up to to as a matrix that shares m's elements. Both must
// begin a panel, or to be the last column's end. A product with it has the bits of those
// columns of the product with m.
func (m *Matrix) Columns(from, to int) Matrix {
	w := m.PanelCols()
	if from < 0 || to < from || to > m.cols || from%w != 0 || to%w != 0 && to != m.cols {
		Panicf("kernel: Matrix.Columns: %d to %d of %d, in panels of %d", from, to, m.cols, w)
	}
	p0, p1 := from/w, (to+w-1)/w
	size := m.panelBytes()
	v := Matrix{tier: m.tier, format: m.format, rows: m.rows, cols: to - from, data: m.data[p0*size : p1*size : p1*size]}
	if m.format == Int8 {
		v.scale = m.scale[from : p1*w : p1*w]
	}
	return v
}

// Format returns how elements are stored.
func (m *Matrix) Format() Format { return m.format }

// Bytes returns how much memory the elements take.
func (m *Matrix) Bytes() int64 { return int64(len(m.data)) + 4*int64(len(m.scale)) }

// At returns element (i, j) as the kernels see it.
func (m *Matrix) At(i, j int) float32 {
	if i < 0 || i >= m.rows || j < 0 || j >= m.cols {
		Panicf("asm: Matrix.At: (%d, %d) is outside %d x %d", i, j, m.rows, m.cols)
	}
	if m.format.parts() > 0 {
		return m.joined(i, j)
	}
	w := m.PanelCols()
	return m.element((j/w*m.rows+i)*w+j%w, j)
}

// Column sets dst to column j as the kernels see it.
func (m *Matrix) Column(dst []float32, j int) {
	CheckLen("asm: Matrix.Column", "dst", len(dst), m.rows)
	if j < 0 || j >= m.cols {
		Panicf("asm: Matrix.Column: column %d is outside %d x %d", j, m.rows, m.cols)
	}
	if m.format.parts() > 0 {
		for i := range dst {
			dst[i] = m.joined(i, j)
		}
		return
	}
	w := m.PanelCols()
	at := j/w*m.rows*w + j%w
	for i := range dst {
		dst[i] = m.element(at+i*w, j)
	}
}

// element returns the element of column j at a place in the packed order.
func (m *Matrix) element(at, j int) float32 {
	switch m.format {
	case BFloat16:
		return scalar.BFloat16Of(m.half()[at])
	case Float16:
		return scalar.Float16Of(m.half()[at])
	case Int8:
		return float32(int8(m.data[at])) * m.scale[j]
	}
	return m.float32()[at]
}

// fullRows is the height of the main kernel's tile.
func (m *Matrix) fullRows() int { return sizesOf[m.tier].tileRows }

// halfRows is the height of the next kernel's: 8 where a tier has one, or 4.
func (m *Matrix) halfRows() int {
	if m.tier == isa.AVX512 && m.format == Float32 {
		return 8
	}
	return 4
}

func (m *Matrix) panels() int { return (m.cols + m.PanelCols() - 1) / m.PanelCols() }
func (m *Matrix) panelBytes() int {
	rows := m.rows
	if m.format.parts() > 0 {
		rows = m.steps() * splitStep
	}
	return rows * m.PanelCols() * m.format.bytes()
}

func (m *Matrix) float32() []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(m.data))), len(m.data)/4)
}

func (m *Matrix) half() []uint16 {
	return unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(m.data))), len(m.data)/2)
}

// aligned returns n bytes that begin a cache line, in old where it is large enough.
func aligned(old []byte, n int) []byte {
	const line = 64
	if cap(old) >= n {
		return old[:n]
	}
	b := make([]byte, n+line-1)
	hugePages(b)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (line - 1)
	return b[skip : skip+n : skip+n]
}

func (m *Matrix) pack(format Format, b blas32.General, transposed bool) {
	CheckMatrix("asm: Matrix", "b", b, b.Rows, b.Cols)
	if format > Float16 {
		Panicf("asm: Matrix: format %d", format)
	}
	m.size(format, b, transposed)
	if format == Int8 {
		m.scale = make([]float32, m.panels()*m.PanelCols())
		m.setScales(b, transposed)
	}
	w := m.PanelCols()
	for p := range m.panels() {
		from := p * w
		n := min(w, m.cols-from)
		if format == Float32 {
			m.packFloat32(p, n, b, transposed)
			continue
		}
		for i := range m.rows {
			for c := range w {
				var v float32
				switch {
				case c >= n:
				case transposed:
					v = b.Data[(from+c)*b.Stride+i]
				default:
					v = b.Data[i*b.Stride+from+c]
				}
				at := (p*m.rows+i)*w + c
				switch {
				case format == BFloat16:
					m.half()[at] = scalar.BFloat16Bits(v)
				case format == Float16:
					m.half()[at] = scalar.Float16Bits(v)
				case c < n:
					m.data[at] = byte(scalar.Quantize(v, m.scale[from+c]))
				default:
					m.data[at] = 0
				}
			}
		}
	}
}

// size makes room for b, for the active tier.
func (m *Matrix) size(format Format, b blas32.General, transposed bool) {
	m.tier, m.format = isa.Active(), format
	m.rows, m.cols = b.Rows, b.Cols
	if transposed {
		m.rows, m.cols = b.Cols, b.Rows
	}
	m.data = aligned(m.data, m.panels()*m.panelBytes())
	m.scale = m.scale[:0]
}

func (m *Matrix) packFloat32(p, n int, b blas32.General, transposed bool) {
	w := m.PanelCols()
	panel := m.float32()[p*m.rows*w:][:m.rows*w]
	if n < w {
		clear(panel)
	}
	if !transposed {
		if n == genericPanel { // without a call to copy so little
			for i := range m.rows {
				*(*quad)(panel[i*w:]) = quad(b.Data[i*b.Stride+p*w:])
			}
			return
		}
		if n == w {
			copyPanel(m.tier, panel, b, p*w)
			return
		}
		for i := range m.rows {
			copy(panel[i*w:][:n], b.Data[i*b.Stride+p*w:])
		}
		return
	}
	// As many columns and rows as fill vectors are turned around in registers.
	cols, rows := 0, 0
	if m.tier != isa.Generic {
		lanes := Lanes(m.tier)
		cols, rows = n/lanes*lanes, m.rows/lanes*lanes
		const most = 1024 // rows to a kernel call
		for c := 0; c < cols && rows > 0; c += lanes {
			for i := 0; i < rows; i += most {
				attentionPackSIMD(m.tier, min(most, rows-i), &b.Data[(p*w+c)*b.Stride+i], 4*b.Stride, &panel[i*w+c], 4*w)
			}
		}
	}
	const block = 8 // rows of the panel at a time: half a cache line of each row of b
	for i0 := 0; i0 < m.rows; i0 += block {
		i1 := min(i0+block, m.rows)
		first := 0
		if i1 <= rows {
			first = cols
		}
		for c := first; c < n; c++ {
			for i, v := range b.Data[(p*w+c)*b.Stride:][i0:i1] {
				panel[(i0+i)*w+c] = v
			}
		}
	}
}

func (m *Matrix) setScales(b blas32.General, transposed bool) {
	for i := range b.Rows {
		for j, v := range b.Data[i*b.Stride:][:b.Cols] {
			c := j
			if transposed {
				c = i
			}
			// NaN and Inf make the scale NaN or Inf, and so the column.
			m.scale[c] = max(m.scale[c], float32(math.Abs(float64(v))))
		}
	}
	for c := range m.scale {
		m.scale[c] /= 127
	}
}

// Large returns n zeros for what is read over and over as a whole, in large pages where they
// help and the system has them.
func Large[T float32 | uint16 | int8](n int) []T {
	x := make([]T, n)
	if n > 0 {
		hugePages(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), n*int(unsafe.Sizeof(x[0]))))
	}
	return x
}
