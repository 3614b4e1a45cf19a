package approx_test

import (
	"context"
	"fmt"
	"log"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/attention/approx"
)

// A token at a time gives what the whole sequence does, in memory that does not
// grow.
func ExampleNewLinear() {
	op, err := approx.NewLinear(approx.LinearConfig{Heads: 1, HeadDim: 2, Causal: true})
	if err != nil {
		log.Fatal(err)
	}
	m := func(x ...float32) blas32.General {
		return blas32.General{Rows: len(x) / 2, Cols: 2, Stride: 2, Data: x}
	}
	qk, v := m(0, 1, 1, 0, -1, 1), m(1, 0, 0, 1, 4, 2)
	whole := m(0, 0, 0, 0, 0, 0)
	if err := op.Forward(whole, qk, qk, v); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.3f\n", whole.Data[4:])
	state, err := op.NewState(approx.StateConfig{})
	if err != nil {
		log.Fatal(err)
	}
	out := m(0, 0)
	for t := range 3 {
		token := func(x blas32.General) blas32.General { return m(x.Data[2*t : 2*t+2]...) }
		if err := op.Step(out, token(qk), token(qk), token(v), state); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Printf("%.3f after %d tokens, %d bytes\n", out.Data, state.Len(), state.Bytes())
	// Output:
	// [1.860 0.979]
	// [1.860 0.979] after 3 tokens, 72 bytes
}

// Keys and values of four tokens are projected to two, here to their sums in pairs; a sequence
// of three is as one whose fourth token is zeros.
func ExampleNewLinformer() {
	e := blas32.General{Rows: 2, Cols: 4, Stride: 4, Data: []float32{1, 1, 0, 0, 0, 0, 1, 1}}
	op, err := approx.NewLinformer(approx.LinformerConfig{Heads: 1, HeadDim: 1, E: e})
	if err != nil {
		log.Fatal(err)
	}
	m := func(x ...float32) blas32.General {
		return blas32.General{Rows: len(x), Cols: 1, Stride: 1, Data: x}
	}
	out := m(0, 0, 0)
	if err := op.Forward(out, m(0, 0, 9), m(0, 0, 9), m(1, 2, 5)); err != nil {
		log.Fatal(err)
	}
	fmt.Println(out.Data)
	// Output: [4 4 5]
}

// Blocks of two tokens: the pair of blocks whose means are most alike is attended to exactly,
// the other tokens of a query's row by the mean of their block.
func ExampleNewMRA2() {
	op, err := approx.NewMRA2(approx.MRA2Config{Heads: 1, HeadDim: 1, Block: 2, Pairs: 2, Diagonals: 1})
	if err != nil {
		log.Fatal(err)
	}
	exact, err := attention.New(attention.Config{Heads: 1, HeadDim: 1})
	if err != nil {
		log.Fatal(err)
	}
	m := func(x ...float32) blas32.General {
		return blas32.General{Rows: len(x), Cols: 1, Stride: 1, Data: x}
	}
	qk, v := m(2, 1.9, -2, -1.9), m(1, 2, 7, 8)
	near, want := m(0, 0, 0, 0), m(0, 0, 0, 0)
	for _, err := range []error{op.Forward(near, qk, qk, v), exact.Forward(want, qk, qk, v)} {
		if err != nil {
			log.Fatal(err)
		}
	}
	fmt.Printf("%.3f\n%.3f\n", near.Data, want.Data)
	// Output:
	// [1.453 1.456 7.447 7.449]
	// [1.453 1.456 7.448 7.449]
}

// With random features of 256 rows, softmax attention is met to a few hundredths where logits
// are small.
func ExampleNewPerformer() {
	op, err := approx.NewPerformer(approx.PerformerConfig{Heads: 1, HeadDim: 2, Features: 256})
	if err != nil {
		log.Fatal(err)
	}
	exact, err := attention.New(attention.Config{Heads: 1, HeadDim: 2})
	if err != nil {
		log.Fatal(err)
	}
	m := func(x ...float32) blas32.General {
		return blas32.General{Rows: len(x) / 2, Cols: 2, Stride: 2, Data: x}
	}
	qk, v := m(0, 0.5, 0.5, 0, -0.5, 0.5), m(1, 0, 0, 1, 4, 2)
	near, want := m(0, 0, 0, 0, 0, 0), m(0, 0, 0, 0, 0, 0)
	for _, err := range []error{op.Forward(near, qk, qk, v), exact.Forward(want, qk, qk, v)} {
		if err != nil {
			log.Fatal(err)
		}
	}
	most := 0.0
	for i, x := range want.Data {
		most = max(most, math.Abs(float64(near.Data[i]-x)))
	}
	fmt.Println(most < 0.05)
	// Output: true
}

// The last token's weights are 1 + x + x^2/2 of its logits x, which are 0, 1 and 2 here.
func ExampleNewBased() {
	op, err := approx.NewBased(approx.BasedConfig{Heads: 1, HeadDim: 1})
	if err != nil {
		log.Fatal(err)
	}
	m := func(x ...float32) blas32.General {
		return blas32.General{Rows: len(x), Cols: 1, Stride: 1, Data: x}
	}
	out := m(0, 0, 0)
	if err := op.Forward(out, m(1, 1, 1), m(0, 1, 2), m(0, 0, 8.5)); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.3f\n", out.Data) // 8.5 * 5 / (1 + 2.5 + 5)
	// Output: [0.000 0.000 5.000]
}

// The last token is padding: what stands there does not matter to the others.
func ExampleOptions() {
	op, err := approx.NewLinear(approx.LinearConfig{Heads: 1, HeadDim: 1})
	if err != nil {
		log.Fatal(err)
	}
	m := func(x ...float32) blas32.General {
		return blas32.General{Rows: len(x), Cols: 1, Stride: 1, Data: x}
	}
	nan := float32(math.NaN())
	out := m(0, 0, 0)
	err = op.Run(context.Background(), &attention.Call{
		Dst: out, Q: m(1, 1, 0), K: []blas32.General{m(0, 1, nan)}, V: []blas32.General{m(3, 6, nan)},
		Options: &approx.Options{Valid: []bool{true, true, false}},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.3f\n", out.Data[:2]) // (1*3 + 2*6) / (1 + 2)
	// Output: [5.000 5.000]
}

// A merged token of size 2, given as a log-weight, counts as two.
func ExampleNewEfficient() {
	op, err := approx.NewEfficient(approx.EfficientConfig{Heads: 1, HeadDim: 1})
	if err != nil {
		log.Fatal(err)
	}
	m := func(x ...float32) blas32.General {
		return blas32.General{Rows: len(x), Cols: 1, Stride: 1, Data: x}
	}
	three := m(0, 0, 0)
	if err := op.Forward(three, m(1, 1, 1), m(0, 0, 1), m(1, 1, 5)); err != nil {
		log.Fatal(err)
	}
	two := m(0, 0)
	err = op.Run(context.Background(), &attention.Call{
		Dst: two, Q: m(1, 1), K: []blas32.General{m(0, 1)}, V: []blas32.General{m(1, 5)},
		LogWeights: m(float32(math.Log(2)), 0),
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.4f %.4f\n", three.Data[0], two.Data[0])
	// Output:
	// 3.3045 3.3045
}

// With as many landmarks as tokens Nyström is exact; where queries and keys
// change slowly, few do nearly as well.
func ExampleNewNystrom() {
	const n = 256
	m := func(f func(i int) float64) blas32.General {
		x := blas32.General{Rows: n, Cols: 1, Stride: 1, Data: make([]float32, n)}
		for i := range x.Data {
			x.Data[i] = float32(f(i))
		}
		return x
	}
	q := m(func(i int) float64 { return math.Sin(float64(i) / 40) })
	v := m(func(i int) float64 { return float64(i) / n })
	for _, landmarks := range []int{8, n} {
		op, err := approx.NewNystrom(approx.NystromConfig{Heads: 1, HeadDim: 1, Landmarks: landmarks})
		if err != nil {
			log.Fatal(err)
		}
		out := m(func(int) float64 { return 0 })
		if err := op.Forward(out, q, q, v); err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%.3f %.3f\n", out.Data[0], out.Data[n-1])
	}
	// Output:
	// 0.498 0.484
	// 0.498 0.484
}

// Features attend to features: where two columns of queries and keys are the same over
// all tokens, they share their values alike.
func ExampleNewXCA() {
	op, err := approx.NewXCA(approx.XCAConfig{Heads: 1, HeadDim: 2})
	if err != nil {
		log.Fatal(err)
	}
	m := func(x ...float32) blas32.General {
		return blas32.General{Rows: len(x) / 2, Cols: 2, Stride: 2, Data: x}
	}
	qk, out := m(1, 1, 2, 2, -1, -1), m(0, 0, 0, 0, 0, 0)
	if err := op.Forward(out, qk, qk, m(0, 2, 4, 6, 8, 8)); err != nil {
		log.Fatal(err)
	}
	fmt.Println(out.Data)
	// Output: [1 1 5 5 8 8]
}
