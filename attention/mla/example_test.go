package mla_test

import (
	"fmt"
	"log"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/attention/mla"
	"github.com/subquad/subquad/rope"
)

// wave is a matrix of numbers between -1 and 1.
func wave(rows, cols int) blas32.General {
	m := blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: make([]float32, rows*cols)}
	for i := range m.Data {
		m.Data[i] = float32(i*7%13-6) / 6
	}
	return m
}

// A prompt, then a token at a time: the state keeps 8 + 4 numbers a token, for all of
// the heads.
func ExampleMLA() {
	const hidden, heads, latent, nope, turned, value = 16, 4, 8, 6, 4, 5
	op, err := mla.New(mla.Config{
		Dim: hidden, Heads: heads, KVRank: latent, NopeDim: nope, RopeDim: turned, ValueDim: value,
		Rotation: rope.Config{Layout: rope.Interleaved},
	}, mla.Weights{
		QB:  wave(heads*(nope+turned), hidden),
		KVA: wave(latent+turned, hidden), KVANorm: []float32{1, 1, 1, 1, 1, 1, 1, 1},
		KVB: wave(heads*(nope+value), latent),
		Out: wave(hidden, heads*value),
	})
	if err != nil {
		log.Fatal(err)
	}
	state, err := op.NewState(attention.StateConfig{MaxTokens: 100})
	if err != nil {
		log.Fatal(err)
	}
	const n = 20
	x, dst, whole := wave(n, hidden), wave(n, hidden), wave(n, hidden)
	rows := func(m blas32.General, from, to int) blas32.General {
		return blas32.General{Rows: to - from, Cols: hidden, Stride: hidden, Data: m.Data[from*hidden : to*hidden]}
	}
	for _, cut := range [][2]int{{0, 18}, {18, 19}, {19, 20}} {
		if err := op.Step(rows(dst, cut[0], cut[1]), rows(x, cut[0], cut[1]), state); err != nil {
			log.Fatal(err)
		}
	}
	if err := op.Forward(whole, x); err != nil {
		log.Fatal(err)
	}
	difference := float32(0)
	for i, x := range whole.Data {
		difference = max(difference, x-dst.Data[i], dst.Data[i]-x)
	}
	fmt.Println(state.Len(), "tokens,", state.Bytes()/100/4, "numbers for each; as Forward:", difference < 1e-3)
	// Output: 20 tokens, 12 numbers for each; as Forward: true
}
