package asm

import (
	"fmt"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/kernel"
)

// Format is how a Matrix stores its elements.
type Format uint8

const (
	// Float32 keeps elements as they are.
	Float32 = Format(kernel.Float32)
	// BFloat16 rounds to the nearest 16-bit float with 8 bits of precision:
	// half the memory, relative error up to 2^-8.
	BFloat16 = Format(kernel.BFloat16)
	// Int8 stores round(b / s) in a byte, with s = max |column| / 127 for each
	// column: a quarter of the memory, error up to s / 2.
	Int8 = Format(kernel.Int8)
	// Float16 rounds to the nearest IEEE half-precision number: half the memory,
	// relative error up to 2^-11 between 6e-5 and 65504, beyond which it overflows.
	Float16 = Format(kernel.Float16)
)

// String returns float32, bfloat16, int8 or float16, and the number of another format.
func (f Format) String() string {
	if f > Float16 {
		return fmt.Sprintf("format %d", uint8(f))
	}
	return kernel.Format(f).String()
}

// Matrix is the right operand of Gemm, [k, n], packed once into the order in
// which the kernels read it.
//
// The order depends on the tier, which is captured when the matrix is made.
// Arithmetic is float32 whatever the format: elements are converted as they are
// read, and the result is that of the float32 matrix that At describes. Only a matrix of
// NewMatrixIn is multiplied in another Precision, that which it was made for.
//
// The zero value is a Float32 matrix of no elements, to be Set.
type Matrix struct{ packed kernel.Matrix }

// NewMatrix returns b packed.
func NewMatrix(format Format, b blas32.General) *Matrix {
	m := new(Matrix)
	m.packed.Pack(kernel.Format(format), b)
	return m
}

// NewMatrixT returns the transpose of b packed: for a layer's weights [out, in],
// as PyTorch keeps them, the k = in by n = out matrix that the layer multiplies by.
func NewMatrixT(format Format, b blas32.General) *Matrix {
	m := new(Matrix)
	m.packed.PackT(kernel.Format(format), b)
	return m
}

// Set packs b in place of the old elements, as Float32 and for the active tier.
// It allocates only when m's memory is too small.
func (m *Matrix) Set(b blas32.General) { m.packed.Pack(kernel.Float32, b) }

// SetT is Set with the transpose of b.
func (m *Matrix) SetT(b blas32.General) { m.packed.PackT(kernel.Float32, b) }

// Dims returns k and n.
func (m *Matrix) Dims() (rows, cols int) { return m.packed.Dims() }

// Format returns how elements are stored: Float32 too where they are so in parts (NewMatrixIn).
func (m *Matrix) Format() Format {
	if m.Precision() != Single {
		return Float32
	}
	return Format(m.packed.Format())
}

// Bytes returns how much memory the elements take.
func (m *Matrix) Bytes() int64 { return m.packed.Bytes() }

// At returns element (i, j) as the kernels see it.
func (m *Matrix) At(i, j int) float32 { return m.packed.At(i, j) }

// Column sets dst to column j as the kernels see it.
func (m *Matrix) Column(dst []float32, j int) { m.packed.Column(dst, j) }
