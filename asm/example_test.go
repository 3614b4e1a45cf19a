package asm_test

import (
	"fmt"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
)

func ExampleDot() {
	fmt.Println(asm.Dot([]float32{1, 2, 3}, []float32{4, 5, 6}))
	// Output: 32
}

// A fully connected layer, y = x W^T + b: the weights are packed once, as bfloat16
// here, and used for any number of rows.
func ExampleGemm() {
	weight := blas32.General{Rows: 2, Cols: 3, Stride: 3, Data: []float32{ // [out, in]
		1, 0, -1,
		2, 2, 2,
	}}
	packed := asm.NewMatrixT(asm.BFloat16, weight)
	bias := []float32{0.5, 0}
	x := blas32.General{Rows: 2, Cols: 3, Stride: 3, Data: []float32{
		1, 2, 3,
		4, 5, 6,
	}}
	y := blas32.General{Rows: 2, Cols: 2, Stride: 2, Data: make([]float32, 4)}
	asm.Gemm(y, x, packed, bias)
	fmt.Println(y.Data[:2], y.Data[2:])
	// Output: [-1.5 12] [-1.5 30]
}

func ExampleSoftmax() {
	x := []float32{1, 1, 1, 1}
	asm.Softmax(x, x)
	fmt.Println(x)
	// Output: [0.25 0.25 0.25 0.25]
}
