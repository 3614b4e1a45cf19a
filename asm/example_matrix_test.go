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

// Numbers whose products are to be nearly those of float32, by the processor's matrix unit
// where it has one: asm.BFloat16x3.Unit() names it. The bits are the same without.
func ExampleNewMatrixIn() {
	b := blas32.General{Rows: 2, Cols: 2, Stride: 2, Data: []float32{
		0.1, 1,
		0.7, 2,
	}}
	m := asm.NewMatrixIn(asm.BFloat16x3, b)
	y := make([]float32, 2)
	asm.Gemv(y, []float32{0.3, 0.9}, m, nil)
	fmt.Println(m.Precision(), y)
	// Output: bfloat16x3 [0.6600003 2.1000023]
}
