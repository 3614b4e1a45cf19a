package sparse_test

import (
	"fmt"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention/sparse"
)

// A query reads its own block of keys and the earlier one whose mean goes best with it.
func ExampleMoBA_Step() {
	const dim = 2
	op, err := sparse.NewMoBA(sparse.MoBAConfig{Heads: 1, HeadDim: dim, Block: 2, TopK: 2})
	if err != nil {
		panic(err)
	}
	st, err := op.NewState(sparse.MoBAStateConfig{})
	if err != nil {
		panic(err)
	}
	// Keys of the first block point to the east, those of the second to the north; values
	// are the numbers of tokens.
	keys := [][dim]float32{{1, 0}, {1, 0}, {0, 1}, {0, 1}, {0, 0}}
	for i, key := range keys {
		token := func(x ...float32) blas32.General {
			return blas32.General{Rows: 1, Cols: dim, Stride: dim, Data: x}
		}
		out := token(0, 0)
		if err := op.Step(out, token(0, 40), token(key[:]...), token(float32(i), 1), st); err != nil {
			panic(err)
		}
		if i == 4 { // looking north
			fmt.Printf("%.3f\n", out.Data[0])
		}
	}
	// Output: 2.500
}
