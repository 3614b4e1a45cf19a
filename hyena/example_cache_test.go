package hyena_test

import (
	"context"
	"fmt"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/hyena"
)

// Two convolutions share one budget for the spectra of their kernels. What Prepare
// computes is kept, and Bytes counts it.
func ExampleNewCache() {
	cache, err := hyena.NewCache(1 << 20)
	if err != nil {
		panic(err)
	}
	kernel := blas32.General{Rows: 1000, Cols: 1, Stride: 1, Data: make([]float32, 1000)}
	kernel.Data[999] = 1 // a delay of 999 tokens
	for range 2 {
		conv, err := hyena.NewConv(hyena.ConvConfig{Kernel: kernel, Cache: cache})
		if err != nil {
			panic(err)
		}
		before := conv.Bytes()
		if err := conv.Prepare(context.Background(), 1000); err != nil {
			panic(err)
		}
		fmt.Println(conv.Bytes() > before)
	}
	// Output:
	// true
	// true
}
