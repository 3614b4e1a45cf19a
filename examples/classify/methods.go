package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/merge"
	"github.com/subquad/subquad/merge/maelre"
)

// method is a way to merge.
type method struct {
	name     string
	ratios   []float64
	matching merge.Config
	ifPays   bool // leave out layers where merging takes more than it is expected to save
}

// trained is the method that the model was trained with.
const trained = "ToMe .50"

var methods = []method{
	{name: "no merging"},
	{name: "ToMe .10", ratios: []float64{.10}},
	{name: "… if it pays", ratios: []float64{.10}, ifPays: true},
	{name: "ToMe .25", ratios: []float64{.25}},
	{name: trained, ratios: []float64{.50}},
	{name: "local .50", ratios: []float64{.50}, matching: merge.Config{Method: merge.Local, Window: 16}},
	{name: "average of 2", ratios: []float64{.50}, matching: merge.Config{Method: merge.Local, Window: 1}},
}

// result is what a method did with the passages.
type result struct {
	name           string
	right, of      int
	tokens, layers int       // entering the layers of a passage, all together
	seconds        []float64 // of each passage
	bytes          uint64    // that the first call took, and later ones reuse
	predicted      []int
}

func (r *result) accuracy() float64 { return float64(r.right) / float64(r.of) }

func (r *result) milliseconds() float64 {
	s := slices.Sorted(slices.Values(r.seconds))
	return 1e3 * s[len(s)/2]
}

// compare classifies the passages by all methods, in turns, so that what else the
// machine does touches all alike.
func compare(ctx context.Context, m *model, methods []method, passages []passage, workers int) (results []*result, err error) {
	if len(passages) == 0 {
		return nil, nil
	}
	encoders := make([]*maelre.Encoder, len(methods))
	for i, how := range methods {
		if encoders[i], err = m.encoder(how, workers); err != nil {
			return nil, err
		}
		r := &result{name: how.name}
		if err := r.begin(ctx, encoders[i], m.embed(passages[0].Text)); err != nil {
			return nil, err
		}
		results = append(results, r)
	}
	m.progress.Begin("classifying", len(passages))
	defer m.progress.End()
	for _, p := range passages {
		x := m.embed(p.Text)
		for i, r := range results {
			call := maelre.Call{X: x, Logits: vector(encoders[i].Classes())}
			start := time.Now()
			if err := encoders[i].Run(ctx, &call); err != nil {
				return nil, err
			}
			r.seconds = append(r.seconds, time.Since(start).Seconds())
			best := largest(call.Logits.Data)
			r.predicted = append(r.predicted, best)
			if r.of++; best == p.Label {
				r.right++
			}
		}
		m.progress.Add(1)
	}
	return results, nil
}

// begin notes what a first call takes, and how many tokens there are in each layer.
func (r *result) begin(ctx context.Context, e *maelre.Encoder, x blas32.General) error {
	var before, after runtime.MemStats
	call := maelre.Call{X: x, Logits: vector(e.Classes())}
	runtime.ReadMemStats(&before)
	if err := e.Run(ctx, &call); err != nil {
		return err
	}
	runtime.ReadMemStats(&after)
	r.bytes = after.TotalAlloc - before.TotalAlloc
	call.Observe = func(s maelre.Stage) {
		if s.Plan != nil {
			r.tokens += s.Plan.Tokens()
			r.layers++
		}
	}
	return e.Run(ctx, &call)
}

func vector(n int) blas32.General {
	return blas32.General{Rows: 1, Cols: n, Stride: n, Data: make([]float32, n)}
}

func largest(x []float32) int { return slices.Index(x, slices.Max(x)) }

// table prints the results.
func table(w io.Writer, results []*result) {
	fmt.Fprintf(w, "%-14s %13s %13s %12s %10s %9s\n", "", "accuracy", "token·layers", "ms/passage", "speed-up", "MB held")
	for _, r := range results {
		fmt.Fprintf(w, "%-14s %5.3f %3d/%3d %13d %12.2f %9.2fx %9.2f\n", r.name, r.accuracy(), r.right, r.of, r.tokens,
			r.milliseconds(), results[0].milliseconds()/r.milliseconds(), float64(r.bytes)/1e6)
	}
	fmt.Fprintf(w, "\nThe model was trained with %s; the others run its weights. Times are medians of %d passages, one at a time.\n", trained, results[0].of)
}
