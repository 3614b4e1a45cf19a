package maelre_test

import (
	"context"
	"fmt"
	"log"
	"math/rand/v2"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention/approx"
	"github.com/subquad/subquad/merge/maelre"
)

// An encoder of its own weights that halves the tokens in each block: linear
// attention while there are more than 16, exact attention after that.
func ExampleNew() {
	const width, heads, hidden, classes = 16, 2, 32, 3
	r := rand.New(rand.NewPCG(1, 2))
	matrix := func(rows, cols int) blas32.General {
		m := blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: make([]float32, rows*cols)}
		for i := range m.Data {
			m.Data[i] = float32(r.NormFloat64()) / 4
		}
		return m
	}
	norm := func() []float32 {
		w := make([]float32, width)
		for i := range w {
			w[i] = 1
		}
		return w
	}
	weights := maelre.Weights{Norm: norm(), Head: matrix(classes, width)}
	for range 4 {
		weights.Blocks = append(weights.Blocks, maelre.Block{
			Norm1: norm(), QKV: matrix(3*width, width), Out: matrix(width, width),
			Norm2: norm(), Up: matrix(hidden, width), Down: matrix(width, hidden),
		})
	}
	linear, err := approx.NewLinear(approx.LinearConfig{Heads: heads, HeadDim: width / heads})
	if err != nil {
		log.Fatal(err)
	}
	encoder, err := maelre.New(maelre.Config{Heads: heads, Approximation: linear, Ratios: []float64{0.5}}, weights)
	if err != nil {
		log.Fatal(err)
	}
	logits := matrix(1, classes)
	err = encoder.Run(context.Background(), &maelre.Call{
		X: matrix(100, width), Logits: logits,
		Observe: func(s maelre.Stage) {
			if s.Plan != nil {
				fmt.Printf("layer %d: %d tokens, approximated: %v; %d are left\n", s.Layer, s.Plan.Tokens(), s.Approximated, s.Plan.Len())
			}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(logits.Data), "logits")
	// Output:
	// layer 0: 100 tokens, approximated: true; 50 are left
	// layer 1: 50 tokens, approximated: true; 25 are left
	// layer 2: 25 tokens, approximated: true; 13 are left
	// layer 3: 13 tokens, approximated: false; 7 are left
	// 3 logits
}
