package sparse_test

import (
	"fmt"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention/sparse"
)

// Queries see the first block of keys, their own block and the one before it.
func ExampleBlocks_Forward() {
	const tokens, heads, dim = 12, 1, 4
	op, err := sparse.NewBlocks(sparse.BlocksConfig{Heads: heads, HeadDim: dim, Causal: true, QueryBlock: 2, KeyBlock: 2})
	if err != nil {
		panic(err)
	}
	var choice sparse.Choice
	if err := op.Choose(&choice, sparse.Pattern{Sinks: 1, Window: 2}, tokens, tokens); err != nil {
		panic(err)
	}
	for a := range choice.Lists() {
		fmt.Println("queries", 2*a, "to", 2*a+1, "read blocks", choice.List(a))
	}
	matrix := func() blas32.General {
		return blas32.General{Rows: tokens, Cols: heads * dim, Stride: heads * dim, Data: make([]float32, tokens*heads*dim)}
	}
	q, k, v, out := matrix(), matrix(), matrix(), matrix()
	for i := range v.Data {
		v.Data[i] = float32(i / dim) // a token's value is its number
	}
	if err := op.Forward(out, q, k, v, &choice); err != nil { // equal weights: means of the values seen
		panic(err)
	}
	fmt.Println("the last query:", out.Data[11*dim])
	// Output:
	// queries 0 to 1 read blocks [0]
	// queries 2 to 3 read blocks [0 1]
	// queries 4 to 5 read blocks [0 1 2]
	// queries 6 to 7 read blocks [0 2 3]
	// queries 8 to 9 read blocks [0 3 4]
	// queries 10 to 11 read blocks [0 4 5]
	// the last query: 6.5
}
