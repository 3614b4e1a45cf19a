package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"sync"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/ssm"
	"github.com/subquad/subquad/ssm/longmamba"
	"github.com/subquad/subquad/ssm/mamba"
)

// method is a way to read a sequence.
type method struct {
	name string
	// filter is of a state that reads the whole sequence.
	filter *longmamba.Filter
	// decimate drops tokens in front of the queries.
	decimate *longmamba.Decimation
}

const (
	vanilla    = "vanilla"
	deltaRatio = "delta ratio"
	deciMamba  = "DeciMamba"
	longMamba  = "LongMamba"
)

// names are those of the methods, in the order of the table.
var names = []string{vanilla, deltaRatio, deciMamba, longMamba}

// newMethods makes them of a calibration.
func newMethods(o options, c *longmamba.Calibration) ([]method, error) {
	settings := longmamba.FilterConfig{Threshold: o.threshold, Scale: o.scale}
	long, err := c.NewFilter(settings)
	if err != nil {
		return nil, err
	}
	settings.Method = longmamba.DeltaRatio // the heads that LongMamba filters
	ratio, err := c.NewFilter(settings)
	if err != nil {
		return nil, err
	}
	// As many tokens go on after the first layer as the model was trained with.
	deci, err := longmamba.NewDecimation(longmamba.DecimationConfig{Layers: []int{0}, Base: trainLength - queryTokens})
	if err != nil {
		return nil, err
	}
	return []method{{name: vanilla}, {name: deltaRatio, filter: ratio}, {name: deciMamba, decimate: deci}, {name: longMamba, filter: long}}, nil
}

// answers returns how many of a sequence's queries the model answers rightly. The
// context and the queries are two calls: a prompt in pieces, whose length is declared.
func (m *method) answers(ctx context.Context, model *mamba.Model, s *sequence) (right int, err error) {
	n := len(s.tokens)
	cut := n - queryTokens
	st, err := model.NewState(ssm.StateConfig{Filter: m.filter, Prompt: n})
	if err != nil {
		return 0, err
	}
	if m.decimate != nil {
		_, err = model.Prefill(ctx, &mamba.PrefillCall{Tokens: s.tokens[:cut], State: st, Decimate: m.decimate, Workers: 1})
	} else {
		err = model.Run(ctx, &mamba.Call{Tokens: s.tokens[:cut], State: st, Workers: 1})
	}
	if err != nil {
		return 0, err
	}
	logits := blas32.General{Rows: queryTokens, Cols: vocabulary, Stride: vocabulary, Data: make([]float32, queryTokens*vocabulary)}
	if err := model.Run(ctx, &mamba.Call{Tokens: s.tokens[cut:], State: st, Logits: logits, Workers: 1}); err != nil {
		return 0, err
	}
	greedy, err := mamba.NewSampler(mamba.SampleConfig{})
	if err != nil {
		return 0, err
	}
	for _, at := range s.answers {
		next, err := greedy.Sample(logits.Data[(at-cut)*vocabulary:][:vocabulary])
		if err != nil {
			return 0, err
		}
		if next == s.tokens[at+1] {
			right++
		}
	}
	return right, nil
}

// result is the recall of each method on sequences of a length.
type result struct {
	tokens int
	recall []float64
}

// deviation is the standard error of a recall.
func deviation(recall float64, sequences int) float64 {
	n := float64(sequences * pairs)
	return math.Sqrt(max(recall*(1-recall), 1/n) / n)
}

// measure runs all methods on the same sequences of n tokens.
func measure(ctx context.Context, o options, model *mamba.Model, methods []method, n int, hard bool) (*result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	right := make([]int, len(methods))
	next := 0
	o.progress.Begin(fmt.Sprintf("%d tokens", n), o.sequences)
	defer o.progress.End()
	var wg sync.WaitGroup
	workers := o.workers
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	for range workers {
		wg.Go(func() {
			for ctx.Err() == nil {
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				if i >= o.sequences {
					return
				}
				s := newSequence(rand.New(rand.NewPCG(o.seed, uint64(n)<<32|uint64(i))), n, hard)
				for k := range methods {
					count, err := methods[k].answers(ctx, model, s)
					if err != nil {
						cancel(err)
						return
					}
					mu.Lock()
					right[k] += count
					mu.Unlock()
				}
				mu.Lock()
				o.progress.Add(1)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	r := &result{tokens: n}
	for _, v := range right {
		r.recall = append(r.recall, float64(v)/float64(o.sequences*pairs))
	}
	return r, nil
}
