package main

import (
	"context"
	"math"
	"time"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/attention/kvcache"
)

// policy is what is read of a past in float32, or held of it.
type policy struct {
	name string
	cfg  kvcache.Config
}

// policyBudget is how many tokens those read that are given a number.
const policyBudget = 2048

func policies(o options) []policy {
	base := kvcache.Config{Heads: o.heads, KVHeads: o.kv, HeadDim: o.dim, Keep: 4, Recent: 64, Chunk: chunk, Workers: o.workers}
	with := func(name string, s kvcache.Selector) policy {
		cfg := base
		cfg.Select = s
		return policy{name, cfg}
	}
	stream := base
	stream.Recent, stream.Evict = o.window, kvcache.StreamingLLM{}
	return []policy{
		with("Shadow, 8 bits", kvcache.Shadow{}), with("Shadow, 4 bits", kvcache.Shadow{Bits: 4}),
		with("TokenSelect 2048", kvcache.TokenSelect{TopK: policyBudget}), with("Quest 2048", kvcache.Quest{Budget: policyBudget}),
		{"StreamingLLM", stream},
	}
}

// measure grows a state and times a token at powers of two.
func (p *policy) measure(ctx context.Context, o options, noise, q blas32.General, exact map[int]blas32.General) (*result, error) {
	op, err := kvcache.New(p.cfg)
	if err != nil {
		return nil, err
	}
	s, err := op.NewState(kvcache.StateConfig{})
	if err != nil {
		return nil, err
	}
	r := &result{name: p.name}
	for _, tokens := range lengths(o.context) {
		if err := fill(ctx, s, noise, tokens, o.progress); err != nil {
			return nil, err
		}
		dst := blas32.General{Rows: 1, Cols: q.Cols, Stride: q.Cols, Data: make([]float32, q.Cols)}
		x := point{tokens: tokens, bytes: s.Bytes(), step: math.MaxInt64}
		next := rows(noise, 0, 1)
		var report kvcache.Report
		call := &attention.Call{Dst: dst, Q: q, K: []blas32.General{next}, V: []blas32.General{next}, State: s, Options: &kvcache.Options{Report: &report}}
		mark := new(kvcache.Mark)
		for range 6 {
			s.Save(mark)
			report = kvcache.Report{}
			begin := time.Now()
			if err := op.Run(ctx, call); err != nil {
				return nil, err
			}
			x.step = min(x.step, max(time.Since(begin), 1))
			if err := s.Restore(mark); err != nil {
				return nil, err
			}
		}
		x.read = report.Bytes + report.Index
		x.err = difference(dst, exact[tokens])
		r.points = append(r.points, x)
	}
	return r, nil
}
