package attention_test

import (
	"context"
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
)

// How much a window of 16 keys loses of exact attention, on sampled queries.
func ExampleNewReporter() {
	const tokens, heads, dim = 256, 2, 8
	matrix := func(f func(i int) float64) blas32.General {
		m := blas32.General{Rows: tokens, Cols: heads * dim, Stride: heads * dim, Data: make([]float32, tokens*heads*dim)}
		for i := range m.Data {
			m.Data[i] = float32(f(i))
		}
		return m
	}
	q := matrix(func(i int) float64 { return math.Sin(float64(i)) })
	k := matrix(func(i int) float64 { return math.Cos(float64(i)) })
	v := matrix(func(i int) float64 { return 1 + float64(i)/(tokens*heads*dim) }) // drifts slowly
	out := matrix(func(int) float64 { return 0 })
	window, err := attention.New(attention.Config{Heads: heads, HeadDim: dim, Causal: true, Window: 16})
	if err != nil {
		panic(err)
	}
	if err := window.Forward(out, q, k, v); err != nil {
		panic(err)
	}
	reporter, err := attention.NewReporter(attention.ReporterConfig{Heads: heads, HeadDim: dim})
	if err != nil {
		panic(err)
	}
	report, err := reporter.Report(context.Background(), &attention.ReportCall{
		Out: out, Q: q, K: []blas32.General{k}, V: []blas32.General{v},
		Visible: func(query int64) (from, to int64) { return query - 15, query + 1 },
	})
	if err != nil {
		panic(err)
	}
	fmt.Printf("%d queries: mean error %.2f, exact attention's weight in the window %.2f\n", report.Rows, report.Mean, report.Mass)
	// Output: 32 queries: mean error 0.16, exact attention's weight in the window 0.23
}
