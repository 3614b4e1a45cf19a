package asm

import (
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
)

func TestAllocations(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		a, b, dst := matrix(1, 13, 40, 0), matrix(2, 40, 50, 0), blank(13, 50, 0)
		packed := NewMatrix(Float32, b)
		taps, out := matrix(3, 3, 40, 0), blank(13, 40, 0)
		if n := testing.AllocsPerRun(10, func() {
			var x, y [64]float32 // on the stack: no kernel lets its arguments escape
			Exp(y[:], x[:])
			RotateHalf(y[:], x[:], 64, x[:32], x[:32])
			RotateInterleaved(y[:], x[:], 64, x[:32], x[:32])
			GELU(y[:], x[:])
			Sin(y[:], x[:])
			Softmax(y[:], x[:])
			LayerNorm(y[:], x[:], nil, nil, 1)
			Axpy(y[:], Dot(x[:], y[:])+Max(x[:])+Cosine(x[:], y[:]), x[:])
			packed.Set(b)
			Gemm(dst, a, packed, nil)
			DepthwiseConv(out, a, taps, nil, blas32.General{})
		}); n != 0 {
			t.Errorf("%v allocations a run", n)
		}
	})
}
