package mla

import (
	"math"
	"math/rand/v2"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/mat/mattest"
)

var (
	random   = mattest.Random
	matrix   = mattest.Matrix
	close64  = mattest.Close
	sameBits = mattest.SameBits
	part     = mat.Rows
)

// formats are how near an output comes with each storage type.
var formats = map[asm.Format]float64{asm.Float32: 3e-6, asm.Float16: 3e-3, asm.BFloat16: 3e-2, asm.Int8: 5e-2}

// blank is a matrix of NaN.
func blank(rows, cols int) blas32.General {
	m := mat.New(rows, cols)
	for i := range m.Data {
		m.Data[i] = float32(math.NaN())
	}
	return m
}

// randomSteps cuts n tokens into steps, some of them empty.
func randomSteps(r *rand.Rand, n int) (steps []int) {
	for n > 0 {
		s := min(n, [...]int{0, 1, 1, 1, 2, 5, 30, 70}[r.IntN(8)])
		steps, n = append(steps, s), n-s
	}
	return steps
}
