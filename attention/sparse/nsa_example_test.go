package sparse_test

import (
	"fmt"
	"log"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention/sparse"
)

// Keys of two kinds, in blocks of two tokens: the last query finds the block whose keys
// are like it, reads that and its own, and not the two between.
func ExampleNSA() {
	op, err := sparse.NewNSA(sparse.NSAConfig{Heads: 1, HeadDim: 1, Block: 2, TopK: 2, Window: 1})
	if err != nil {
		log.Fatal(err)
	}
	column := func(x ...float32) blas32.General {
		return blas32.General{Rows: len(x), Cols: 1, Stride: 1, Data: x}
	}
	q := column(0, 0, 0, 0, 0, 0, 0, 9)
	k := column(9, 9, -9, -9, -9, -9, 0, 0)
	v := column(5, 7, 1, 1, 1, 1, 2, 2)
	ones := column(1, 1, 1, 1, 1, 1, 1, 1)
	dst := column(0, 0, 0, 0, 0, 0, 0, 0)
	if err := op.Forward(dst, q, k, v, sparse.Gates{Selected: ones}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(dst.Data[7])
	// Output: 6
}
