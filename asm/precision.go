package asm

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/kernel"
)

// Precision is what products of float32 matrices are computed in. The zero value is
// float32 itself, and nothing is computed in another precision unasked.
//
// In the others each element of both matrices is split into bfloat16 numbers, x = hi + lo
// or x = hi + mid + lo, the nearest to x, the nearest to what is left, and so on, or is
// rounded to one. The
// products of the parts that matter are exact and are summed in float32 (Henry, Tang and
// Heinecke 2019, arXiv 1904.06376). A matrix unit multiplies bfloat16 numbers many times
// faster than vectors multiply float32, so that products of many rows are faster for it.
//
// With S = sum |a| |b| over k, the bias included, an element is within the bounds below of
// what exact arithmetic gives; errors of random signs are far smaller.
//
// Bits are the same on every machine and in every tier, with a matrix unit and without, but for
// those of a NaN. Elements and sums that are subnormal are zero: of elements above 2^-40 in
// magnitude none is. An infinite element, or one from 3.396e38 on, makes NaN of every sum that it
// is in, in BFloat16x1 infinity or NaN.
//
// On a matrix unit a product of many rows takes .4 (BFloat16x3), .7 (BFloat16x6) and .2
// (BFloat16x1) of the time of float32's in AVX-512; one of fewer than eight rows, as in decoding, is
// no faster in BFloat16x3 and slower in BFloat16x6, for most of it is reading b. Without a unit the
// products are made in portable Go, some 100 (BFloat16x1) to 800 times (BFloat16x6) slower than
// float32's in AVX-512 for many rows, and 3 to 20 times slower than float32's in portable Go: ask Unit first.
type Precision uint8

const (
	// Single multiplies in float32: the error is that of a float32 sum over k.
	Single Precision = iota
	// BFloat16x3 sums hi hi + lo hi + hi lo: within (2^-15 + (3 k/32 + 21) 2^-24) S.
	// A packed matrix takes the memory of float32.
	BFloat16x3
	// BFloat16x6 sums the six products that three parts each need: within
	// (2^-24 + (6 k/32 + 24) 2^-24) S, that is as good as float32 or better. A packed matrix
	// takes 1.5 times the memory of float32.
	BFloat16x6
	// BFloat16x1 multiplies the nearest bfloat16 numbers themselves: within
	// (2^-7 + (k/32 + 20) 2^-24) S. A packed matrix takes half the memory of float32.
	BFloat16x1
)

// String returns float32, bfloat16x3, bfloat16x6 or bfloat16x1, and the number of what is none
// of these.
func (p Precision) String() string { return kernel.PrecisionName(uint8(p)) }

// Unit returns the name of what multiplies in this precision beside the tier that Active
// names: amx-bf16 for the matrix unit of that name, or none. It is none for Single, for
// processors and systems without a unit that has kernels (today those are of Linux on
// amd64), and where SUBQUAD_ISA lowers the tier.
func (p Precision) Unit() string {
	if p != Single && isa.Granted(isa.AMXBFloat16) {
		return isa.AMXBFloat16.String()
	}
	return isa.Unit(0).String()
}

func (p Precision) format() kernel.Format { return kernel.PrecisionFormat(uint8(p)) }

// NewMatrixIn returns b packed for products in a precision, by Gemm, GemmAdd and Gemv,
// which split their left operand as they go. At and Column return sums of an element's
// parts: of BFloat16x3 within 2^-17 of the element, of BFloat16x6 the element itself.
// Rows and columns are filled up to multiples of 32, which Bytes counts.
//
// With Single it is NewMatrix with Float32.
func NewMatrixIn(precision Precision, b blas32.General) *Matrix {
	m := new(Matrix)
	m.packed.PackIn(precision.format(), b, false)
	return m
}

// NewMatrixTIn is NewMatrixIn with the transpose of b.
func NewMatrixTIn(precision Precision, b blas32.General) *Matrix {
	m := new(Matrix)
	m.packed.PackIn(precision.format(), b, true)
	return m
}

// Precision returns what products with m are computed in.
func (m *Matrix) Precision() Precision {
	switch m.packed.Format() {
	case kernel.BFloat16x3:
		return BFloat16x3
	case kernel.BFloat16x6:
		return BFloat16x6
	case kernel.BFloat16x1:
		return BFloat16x1
	}
	return Single
}
