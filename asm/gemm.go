package asm

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/kernel"
)

// Gemm sets dst = a b + bias, with a [m, k], b [k, n], dst [m, n] and bias [n],
// added to every row, or nil for none.
//
// Each element is the sum over k in order, begun with the bias: a row's result
// depends neither on the other rows nor on how many there are, to the bit, so a
// token at a time and all tokens at once agree. dst must not overlap a or bias.
//
// It costs 2 m n k flop, in the Precision that b was packed for.
func Gemm(dst, a blas32.General, b *Matrix, bias []float32) { kernel.Gemm(dst, a, &b.packed, bias) }

// GemmAdd adds a b to dst. It is otherwise as Gemm.
func GemmAdd(dst, a blas32.General, b *Matrix) { kernel.GemmAdd(dst, a, &b.packed) }

// Gemv sets dst = x b + bias for one row x [k], dst [n]: a matrix times a
// vector, for b packed by NewMatrixT. It is bound by reading b, once.
func Gemv(dst, x []float32, b *Matrix, bias []float32) { kernel.Gemv(dst, x, &b.packed, bias) }
