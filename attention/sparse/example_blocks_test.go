package sparse_test

import (
	"context"
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
	if err := op.Choose(&choice, sparse.Pattern{Keep: 1, Window: 2}, tokens, tokens); err != nil {
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

// Blocks of queries read their own block of keys and the one that the caller scores best: here
// by a number that each block of keys has, as an indexer or the weights of earlier queries give.
func ExampleBlocks_ChooseScored() {
	op, err := sparse.NewBlocks(sparse.BlocksConfig{Heads: 8, KVHeads: 2, HeadDim: 64, Causal: true, QueryBlock: 64, KeyBlock: 64})
	if err != nil {
		panic(err)
	}
	worth := []float32{0, 3, 1, 2, 0, 5, 0, 0}
	var choice sparse.Choice
	err = op.ChooseScored(context.Background(), &choice, sparse.Pattern{Window: 1, TopK: 1}, 512, 512, 1, func(scores []float32, block, head int) {
		copy(scores, worth) // of the blocks up to the queries' own
	})
	if err != nil {
		panic(err)
	}
	for a := range choice.Lists() {
		fmt.Print(choice.List(a), " ")
	}
	// Output: [0] [1] [1 2] [1 3] [1 4] [5] [5 6] [5 7]
}
