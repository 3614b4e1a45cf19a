package attention_test

import (
	"bytes"
	"context"
	"fmt"
	"log"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
)

func matrix(rows, cols int, data ...float32) blas32.General {
	return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: data}
}

// Causal attention with one head of width 2. All keys are equal, so that each
// query takes the mean of the values up to its own.
func ExampleAttention() {
	att, err := attention.New(attention.Config{Heads: 1, HeadDim: 2, Causal: true})
	if err != nil {
		log.Fatal(err)
	}
	q := matrix(3, 2, 1, 2, 3, 4, 5, 6)
	k := matrix(3, 2, 1, 1, 1, 1, 1, 1)
	v := matrix(3, 2, 1, 0, 3, 0, 5, 6)
	dst := matrix(3, 2, make([]float32, 6)...)
	if err := att.Forward(dst, q, k, v); err != nil {
		log.Fatal(err)
	}
	for i := range dst.Rows {
		fmt.Printf("%.2f\n", dst.Data[i*dst.Stride:][:dst.Cols])
	}
	// Output:
	// [1.00 0.00]
	// [2.00 0.00]
	// [3.00 2.00]
}

// Two parts of the keys, attended to apart and put together.
func ExampleMerge() {
	att, err := attention.New(attention.Config{Heads: 1, HeadDim: 1, Scale: 1})
	if err != nil {
		log.Fatal(err)
	}
	q := matrix(1, 1, 1)
	k, v := matrix(4, 1, 0, 1, 2, 3), matrix(4, 1, 1, 2, 3, 4)
	over := func(from, to int) attention.Partial {
		rows := func(m blas32.General) []blas32.General {
			return []blas32.General{matrix(to-from, 1, m.Data[from:to]...)}
		}
		p := attention.Partial{Out: matrix(1, 1, 0), LSE: matrix(1, 1, 0)}
		err := att.Run(context.Background(), &attention.Call{Dst: p.Out, LSE: p.LSE, Q: q, K: rows(k), V: rows(v), Partial: true})
		if err != nil {
			log.Fatal(err)
		}
		return p
	}
	whole := over(0, 4)
	merged := attention.Partial{Out: matrix(1, 1, 0), LSE: matrix(1, 1, 0)}
	if err := attention.Merge(merged, nil, over(0, 1), over(1, 4)); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.4f %.4f\n", whole.Out.Data[0], whole.LSE.Data[0])
	fmt.Printf("%.4f %.4f\n", merged.Out.Data[0], merged.LSE.Data[0])
	// Output:
	// 3.4927 3.4402
	// 3.4927 3.4402
}

// A merged token that stands for three counts as three.
func ExampleCall_logWeights() {
	att, err := attention.New(attention.Config{Heads: 1, HeadDim: 1})
	if err != nil {
		log.Fatal(err)
	}
	const log3 = 1.0986123
	dst := matrix(1, 1, 0)
	err = att.Run(context.Background(), &attention.Call{
		Dst: dst, Q: matrix(1, 1, 1),
		K: []blas32.General{matrix(2, 1, 2, 2)}, V: []blas32.General{matrix(2, 1, 10, 20)},
		LogWeights: matrix(2, 1, 0, log3),
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.1f\n", dst.Data[0]) // (10 + 3*20) / 4
	// Output: 17.5
}

// Decoding: a prompt, then a token at a time, and a second continuation of the
// same prompt. The last token sees all that its state holds.
func ExampleAttention_Step() {
	att, err := attention.New(attention.Config{Heads: 1, HeadDim: 2, Causal: true})
	if err != nil {
		log.Fatal(err)
	}
	pages, err := att.NewPages(attention.PagesConfig{PageTokens: 16, MaxPages: 1000})
	if err != nil {
		log.Fatal(err)
	}
	state, err := att.NewState(attention.StateConfig{Pages: pages})
	if err != nil {
		log.Fatal(err)
	}
	// All keys are equal, so that each token takes the mean of the values so far.
	prompt := matrix(2, 2, 1, 0, 3, 0)
	dst := matrix(2, 2, make([]float32, 4)...)
	if err := att.Step(dst, prompt, matrix(2, 2, 1, 1, 1, 1), prompt, state); err != nil {
		log.Fatal(err)
	}
	fork := state.Clone() // shares the page until one of them writes
	for _, s := range []*attention.State{state, fork} {
		next := matrix(1, 2, 5, 6)
		if s == fork {
			next = matrix(1, 2, -1, 9)
		}
		out := matrix(1, 2, 0, 0)
		if err := att.Step(out, next, matrix(1, 2, 1, 1), next, s); err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%d tokens: %.2f\n", s.Len(), out.Data)
	}
	fmt.Println("pages in use:", pages.Used())
	// Output:
	// 3 tokens: [3.00 2.00]
	// 3 tokens: [1.00 3.00]
	// pages in use: 2
}

// A state goes to a file and comes back. Its second token is a merged one that
// stands for three.
func ExampleState_WriteTo() {
	att, err := attention.New(attention.Config{Heads: 1, HeadDim: 1, Causal: true})
	if err != nil {
		log.Fatal(err)
	}
	state, err := att.NewState(attention.StateConfig{LogWeights: true})
	if err != nil {
		log.Fatal(err)
	}
	const log3 = 1.0986123
	err = att.Run(context.Background(), &attention.Call{ // without queries
		State: state, K: []blas32.General{matrix(2, 1, 0, 0)}, V: []blas32.General{matrix(2, 1, 10, 20)},
		LogWeights: matrix(2, 1, 0, log3),
	})
	if err != nil {
		log.Fatal(err)
	}
	var file bytes.Buffer
	if _, err := state.WriteTo(&file); err != nil {
		log.Fatal(err)
	}
	read, err := att.ReadState(&file)
	if err != nil {
		log.Fatal(err)
	}
	dst := matrix(1, 1, 0)
	if err := att.Step(dst, matrix(1, 1, 0), matrix(1, 1, 0), matrix(1, 1, 5), read); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d tokens: %.1f\n", read.Len(), dst.Data[0]) // (10 + 3*20 + 5) / 5
	// Output: 3 tokens: 15.0
}

// Speculative decoding: two guesses for the next token and one for that after the
// first, all in one step; the first path turns out right.
func ExampleState_Accept() {
	att, err := attention.New(attention.Config{Heads: 1, HeadDim: 1, Causal: true})
	if err != nil {
		log.Fatal(err)
	}
	state, err := att.NewState(attention.StateConfig{})
	if err != nil {
		log.Fatal(err)
	}
	if err := state.Append(matrix(1, 1, 0), matrix(1, 1, 8)); err != nil {
		log.Fatal(err)
	}
	guesses := matrix(3, 1, 2, 4, 5) // with keys of 0, each takes the mean of what it sees
	dst := matrix(3, 1, 0, 0, 0)
	err = att.Run(context.Background(), &attention.Call{
		State: state, Tree: []int{-1, -1, 0},
		Dst: dst, Q: guesses, K: []blas32.General{matrix(3, 1, 0, 0, 0)}, V: []blas32.General{guesses},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(dst.Data) // (8+2)/2, (8+4)/2, (8+2+5)/3
	if err := state.Accept(3, []int{0, 2}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(state.Len(), "tokens")
	// Output:
	// [5 6 5]
	// 3 tokens
}

// Tokens that are no longer wanted leave the state; those that stay keep their
// positions.
func ExampleState_Keep() {
	op, err := attention.New(attention.Config{Heads: 1, HeadDim: 1, Causal: true})
	if err != nil {
		log.Fatal(err)
	}
	state, err := op.NewState(attention.StateConfig{})
	if err != nil {
		log.Fatal(err)
	}
	zeros := func(n int) blas32.General { return matrix(n, 1, make([]float32, n)...) }
	if err := state.Append(zeros(5), matrix(5, 1, 1, 10, 100, 1000, 10000)); err != nil {
		log.Fatal(err)
	}
	if err := state.Keep([]int32{0, 3}); err != nil { // of the five that are held
		log.Fatal(err)
	}
	dst := zeros(1)
	if err := op.Step(dst, zeros(1), zeros(1), matrix(1, 1, 2), state); err != nil {
		log.Fatal(err)
	}
	fmt.Println(dst.Data[0], state.Positions(nil), state.Len()) // (1 + 1000 + 2) / 3
	// Output: 334.33334 [0 3 5] 6
}
