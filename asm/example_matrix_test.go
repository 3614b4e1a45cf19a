package asm_test

import (
	"fmt"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
)

// Weights are packed once, here to int8 with a scale for each column, and multiplied
// many times.
func ExampleNewMatrix() {
	b := blas32.General{Rows: 2, Cols: 3, Stride: 3, Data: []float32{
		1, 0, 2,
		0, 1, 2,
	}}
	m := asm.NewMatrix(asm.Int8, b)
	y := make([]float32, 3)
	asm.Gemv(y, []float32{10, 20}, m, nil)
	fmt.Printf("%.1f\n", y)
	// Output: [10.0 20.0 60.0]
}
