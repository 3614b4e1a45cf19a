package cca_test

import (
	"context"
	"fmt"
	"log"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/attention/cca"
)

// matrix is a matrix of the data given, without gaps.
func matrix(rows, cols int, data ...float32) blas32.General {
	return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: data}
}

// wave is a matrix of tokens that change slowly.
func wave(rows, cols int) blas32.General {
	m := matrix(rows, cols, make([]float32, rows*cols)...)
	for i := range m.Data {
		m.Data[i] = float32(i/cols%64) / 64 * float32(i%cols%3)
	}
	return m
}

// A prompt in two chunks, then a token at a time. The state holds a core for each
// four tokens and the tokens of the window.
func ExampleCCA() {
	op, err := cca.New(cca.Config{Heads: 4, KVHeads: 2, HeadDim: 8, GroupSize: 4, Window: 16})
	if err != nil {
		log.Fatal(err)
	}
	const n = 200
	q, k, v, dst := wave(n, 32), wave(n, 16), wave(n, 16), wave(n, 32)
	rows := func(m blas32.General, from, to int) blas32.General {
		return matrix(to-from, m.Cols, m.Data[from*m.Cols:to*m.Cols]...)
	}
	state, err := op.NewState(cca.StateConfig{})
	if err != nil {
		log.Fatal(err)
	}
	for _, cut := range [][2]int{{0, 90}, {90, 198}, {198, 199}, {199, 200}} {
		from, to := cut[0], cut[1]
		if err := op.Step(rows(dst, from, to), rows(q, from, to), rows(k, from, to), rows(v, from, to), state); err != nil {
			log.Fatal(err)
		}
	}
	whole := wave(n, 32)
	if err := op.Forward(whole, q, k, v); err != nil {
		log.Fatal(err)
	}
	difference := float32(0)
	for i, x := range whole.Data {
		difference = max(difference, x-dst.Data[i], dst.Data[i]-x)
	}
	cores := 0
	for _, g := range state.Cores(nil) {
		cores += g.Tokens
	}
	fmt.Println(state.Len(), "tokens,", cores, "cores; as Forward:", difference < 1e-5)
	// Output: 200 tokens, 50 cores; as Forward: true
}

// How much of what a query would see lies within the window, and how far the
// outputs are from those of exact attention.
func ExampleCCA_Window() {
	const n = 300
	op, err := cca.New(cca.Config{Heads: 4, KVHeads: 2, HeadDim: 8, GroupSize: 4, Window: 64, CountTokens: true})
	if err != nil {
		log.Fatal(err)
	}
	q, k, v, out := wave(n, 32), wave(n, 16), wave(n, 16), wave(n, 32)
	if err := op.Forward(out, q, k, v); err != nil {
		log.Fatal(err)
	}
	reporter, err := attention.NewReporter(attention.ReporterConfig{Heads: 4, KVHeads: 2, HeadDim: 8, Rows: 16})
	if err != nil {
		log.Fatal(err)
	}
	report, err := reporter.Report(context.Background(), &attention.ReportCall{
		Out: out, Q: q, K: []blas32.General{k}, V: []blas32.General{v}, Visible: op.Window,
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d rows, mean error below 1 %%: %v, %.0f %% of the weight in the window\n", report.Rows, report.Mean < 0.01, 100*report.Mass)
	// Output: 16 rows, mean error below 1 %: true, 57 % of the weight in the window
}
