// Package mat names the parts of a blas32.General: rows, columns, the whole. Other
// packages index a matrix's Data and Stride only in their inner loops.
//
// Letters: m is a matrix of Rows x Cols; row i begins at Data[i*Stride].
package mat

import (
	"math"
	"unsafe"

	"gonum.org/v1/gonum/blas/blas32"
)

// Row returns row i of m, of m.Cols elements.
func Row(m blas32.General, i int) []float32 {
	if m.Cols == 0 {
		return nil
	}
	return m.Data[i*m.Stride:][:m.Cols]
}

// Part returns n elements of row i of m, from column col on.
func Part(m blas32.General, i, col, n int) []float32 { return m.Data[i*m.Stride+col:][:n] }

// Rows returns rows from (included) to to (excluded) of m, as a view.
func Rows(m blas32.General, from, to int) blas32.General {
	m.Rows = to - from
	m.Data = m.Data[min(from*m.Stride, len(m.Data)):]
	return m
}

// Columns returns n columns of m from column from on, as a view.
func Columns(m blas32.General, from, n int) blas32.General {
	m.Cols = n
	m.Data = m.Data[min(from, len(m.Data)):]
	return m
}

// Of returns a matrix of rows x cols, without gaps, over the beginning of data.
func Of(data []float32, rows, cols int) blas32.General {
	return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: data[:rows*cols]}
}

// New returns a matrix of rows x cols zeros.
func New(rows, cols int) blas32.General { return Of(make([]float32, rows*cols), rows, cols) }

// Vector returns x as a matrix of one row.
func Vector(x []float32) blas32.General { return Of(x, 1, len(x)) }

// Given tells whether an optional matrix was given at all: only the zero value, or one
// of nothing but a Stride, was not.
func Given(m blas32.General) bool { return m.Rows != 0 || m.Cols != 0 || m.Data != nil }

// Copy copies the rows of src to the first rows of dst, of as many columns.
func Copy(dst, src blas32.General) {
	switch {
	case src.Cols == src.Stride && dst.Stride == src.Stride: // one piece
		copy(dst.Data, src.Data[:src.Rows*src.Cols])
		return
	case src.Cols == 1: // a column
		for i := range src.Rows {
			dst.Data[i*dst.Stride] = src.Data[i*src.Stride]
		}
		return
	}
	for i := range src.Rows {
		copy(Row(dst, i), Row(src, i))
	}
}

// Clear sets all elements of m to 0.
func Clear(m blas32.General) {
	for i := range m.Rows {
		clear(Row(m, i))
	}
}

// Same tells whether a and b begin at the same element with the same stride, so that
// an operation on rows may work in place.
func Same(a, b blas32.General) bool {
	return a.Stride == b.Stride && unsafe.SliceData(a.Data) == unsafe.SliceData(b.Data)
}

// Overlap tells whether two matrices share elements. Matrices that stand side by
// side in the columns of one buffer, with its stride, share none; two that
// interleave with different strides are taken to. A matrix whose data are shorter
// than its shape says is taken as far as its data go.
func Overlap(a, b blas32.General) bool {
	ea, eb := extent(a), extent(b)
	if !OverlapVectors(ea, eb) {
		return false
	}
	if a.Stride != b.Stride || a.Stride <= 0 {
		return true
	}
	// How far a row of b begins after a row of a.
	after := int(address(eb)-address(ea)) / 4 % a.Stride
	if after < 0 {
		after += a.Stride
	}
	return after < a.Cols || after+b.Cols > a.Stride
}

// OverlapVectors tells whether two vectors share elements.
func OverlapVectors(a, b []float32) bool {
	if len(a) == 0 || len(b) == 0 {
		return false
	}
	pa, pb := address(a), address(b)
	return pa < pb+4*uintptr(len(b)) && pb < pa+4*uintptr(len(a))
}

func address(a []float32) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(a))) }

// extent is the data from the first to the last element of m.
func extent(m blas32.General) []float32 {
	if m.Rows <= 0 || m.Cols <= 0 || m.Stride < 0 {
		return nil
	}
	const most = math.MaxInt
	if m.Stride > 0 && m.Rows-1 > (len(m.Data)+m.Stride)/m.Stride || m.Cols > most-(m.Rows-1)*m.Stride {
		return m.Data
	}
	return m.Data[:min((m.Rows-1)*m.Stride+m.Cols, len(m.Data))]
}
