package kvcache_test

import (
	"context"
	"fmt"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/attention/kvcache"
)

func matrix(rows, cols int) blas32.General {
	return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: make([]float32, rows*cols)}
}

// A past of 10,000 tokens is held, of which each token reads the first 4, the last 128
// and pages of 16 that may matter, 512 tokens in all.
func ExampleNew() {
	pol, err := kvcache.New(kvcache.Config{
		Heads: 4, KVHeads: 2, HeadDim: 16, Keep: 4, Recent: 128, Chunk: 1, Dense: 2_000,
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
	for _, n := range []int{2_000, 1} { // a prompt, which is read in full, and a token
		if err := pol.Step(matrix(n, 4*16), matrix(n, 4*16), matrix(n, 2*16), matrix(n, 2*16), st); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println(st.Len(), st.Held(0))
	// Output: 2001 2001
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

// A prompt is read in full; each token after it reads exactly, of each of the two key
// heads, the 64 tokens with the largest logits and those of the last, unfinished page.
func Example() {
	op, err := kvcache.New(kvcache.Config{Heads: 2, HeadDim: 16, Select: kvcache.Shadow{TopK: 64}})
	if err != nil {
		fmt.Println(err)
		return
	}
	st, err := op.NewState(kvcache.StateConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	var report kvcache.Report
	for _, n := range []int{1024, 1} {
		x := matrix(n, 32)
		c := &attention.Call{
			Dst: matrix(n, 32), Q: x, K: []blas32.General{x}, V: []blas32.General{x}, State: st,
			Options: &kvcache.Options{Report: &report},
		}
		if err := op.Run(context.Background(), c); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println(report.Tokens, "of", report.Held)
	// Output: 130 of 2050
}

// After a prompt, SnapKV keeps what its last queries looked at, and AdaKV divides the
// memory of two key heads by what each needs.
func ExampleState_Compact() {
	op, err := kvcache.New(kvcache.Config{
		Heads: 4, KVHeads: 2, HeadDim: 16, Keep: 4, Recent: 32,
		Evict: kvcache.AdaKV{Evict: kvcache.SnapKV{Budget: 128, Window: 32}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	st, err := op.NewState(kvcache.StateConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := op.Step(matrix(1000, 64), matrix(1000, 64), matrix(1000, 32), matrix(1000, 32), st); err != nil {
		fmt.Println(err)
		return
	}
	if err := st.Compact(0); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(st.Len(), "tokens,", st.Held(0)+st.Held(1), "keys held")
	// Output: 1000 tokens, 256 keys held
}
