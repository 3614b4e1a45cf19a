package kvcache_test

import (
	"fmt"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention/kvcache"
)

func matrix(rows, cols int) blas32.General {
	return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: make([]float32, rows*cols)}
}

// A past of 10,000 tokens is held, of which each token reads the first 4, the last 128
// and pages of 16 that may matter, 512 tokens in all.
func ExampleNew() {
	pol, err := kvcache.New(kvcache.Config{
		Heads: 4, KVHeads: 2, HeadDim: 16, Keep: 4, Recent: 128, Chunk: 1, Dense: 10_000,
		Select: kvcache.Quest{Page: 16, Budget: 512},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	st, err := pol.NewState(kvcache.StateConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, n := range []int{10_000, 1} { // a prompt, which is read in full, and a token
		if err := pol.Step(matrix(n, 4*16), matrix(n, 4*16), matrix(n, 2*16), matrix(n, 2*16), st); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println(st.Len(), st.Held(0))
	// Output: 10001 10001
}

// StreamingLLM keeps a state of constant size.
func ExampleStreamingLLM() {
	pol, err := kvcache.New(kvcache.Config{Heads: 2, HeadDim: 16, Keep: 4, Recent: 12, Evict: kvcache.StreamingLLM{}, Positions: kvcache.InCache, Chunk: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	st, err := pol.NewState(kvcache.StateConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	x := matrix(100, 32)
	if err := pol.Step(matrix(100, 32), x, x, x, st); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(st.Positions(nil, 0))
	// Output: [0 1 2 3 88 89 90 91 92 93 94 95 96 97 98 99]
}
