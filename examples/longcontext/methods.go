package main

import (
	"context"
	"fmt"
	"time"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/attention/cca"
	"github.com/subquad/subquad/attention/kvcache"
)

// method is a way to attend over one sequence.
type method struct {
	name string
	// attend sets dst; seen tells what a query sees as it is.
	attend func(ctx context.Context, dst blas32.General, s *sequence) error
	seen   func(query int64) (from, to int64)
	only   string // the kind of sequences it makes sense for, or ""
}

// names of the methods, in the order of the table.
const (
	exactly = "exact"
	pooled  = "CCA"
	counted = "CCA, tokens counted"
	levels  = "hierarchy of cores"
	blocks  = "CCA, needles as they are"
	window  = "window"
	chosen  = "TokenSelect 1024"
	slashes = "vertical-slash 256, 512"
	means   = "100 blocks of 64"
	mixed   = "MoBA, 32 blocks of 64"
)

func newMethods(o options, n int) ([]method, error) {
	var list []method
	if n <= o.exact {
		att, err := attention.New(attention.Config{Heads: o.heads, HeadDim: o.dim, Causal: true, Workers: o.workers})
		if err != nil {
			return nil, err
		}
		list = append(list, method{
			name: exactly,
			attend: func(ctx context.Context, dst blas32.General, s *sequence) error {
				return att.Run(ctx, &attention.Call{Dst: dst, Q: s.q, K: []blas32.General{s.k}, V: []blas32.General{s.v}})
			},
			seen: func(query int64) (from, to int64) { return 0, query + 1 },
		})
	}
	base := cca.Config{Heads: o.heads, HeadDim: o.dim, GroupSize: o.group, Window: o.window, Workers: o.workers}
	count, deep := base, base
	count.CountTokens = true
	deep.CountTokens, deep.Levels = true, 32
	for _, x := range []struct {
		name string
		cfg  cca.Config
	}{{pooled, base}, {counted, count}, {levels, deep}, {blocks, base}} {
		op, err := cca.New(x.cfg)
		if err != nil {
			return nil, err
		}
		m := method{name: x.name, seen: op.Window}
		m.attend = func(ctx context.Context, dst blas32.General, s *sequence) error {
			call := &attention.Call{Dst: dst, Q: s.q, K: []blas32.General{s.k}, V: []blas32.General{s.v}}
			if x.name == blocks {
				call.Options = &cca.Options{Blocks: s.blocks(o.group)}
			}
			return op.Run(ctx, call)
		}
		if x.name == blocks {
			m.only = needles
		}
		list = append(list, m)
	}
	for _, more := range []func(options) ([]method, error){newPolicies, newSparse} {
		methods, err := more(o)
		if err != nil {
			return nil, err
		}
		list = append(list, methods...)
	}
	return list, nil
}

// newPolicies returns prefill under policies of package kvcache.
func newPolicies(o options) (list []method, err error) {
	recent := func(query int64) (from, to int64) { return max(0, query+1-int64(o.window)), query + 1 }
	base := kvcache.Config{Heads: o.heads, KVHeads: o.heads, HeadDim: o.dim, Keep: 4, Recent: o.window, Chunk: max(1, o.window/2), Workers: o.workers}
	near, some := base, base
	near.Select, some.Select = kvcache.Window{}, kvcache.TokenSelect{TopK: 1024}
	for _, x := range []struct {
		name string
		cfg  kvcache.Config
	}{{window, near}, {chosen, some}} {
		op, err := kvcache.New(x.cfg)
		if err != nil {
			return nil, err
		}
		list = append(list, method{name: x.name, seen: recent, attend: func(ctx context.Context, dst blas32.General, s *sequence) error {
			st, err := op.NewState(kvcache.StateConfig{})
			if err != nil {
				return err
			}
			return op.Run(ctx, &attention.Call{Dst: dst, Q: s.q, K: []blas32.General{s.k}, V: []blas32.General{s.v}, State: st})
		}})
	}
	slash := kvcache.VerticalSlash{Heads: o.heads, Vertical: 256, Slash: 512, Workers: o.workers}
	return append(list, method{
		name: slashes,
		attend: func(ctx context.Context, dst blas32.General, s *sequence) error {
			return slash.Run(ctx, dst, s.q, s.k, s.v)
		},
		// Diagonals are chosen; the nearest are always among them.
		seen: func(query int64) (from, to int64) { return max(0, query-99), query + 1 },
	}), nil
}

// compare runs all methods on sequences of n tokens.
func compare(ctx context.Context, o options, n int) ([]*result, error) {
	methods, err := newMethods(o, n)
	if err != nil {
		return nil, err
	}
	reporter, err := attention.NewReporter(attention.ReporterConfig{Heads: o.heads, HeadDim: o.dim, Rows: o.rows, Workers: o.workers})
	if err != nil {
		return nil, err
	}
	var results []*result
	for _, m := range methods {
		results = append(results, &result{method: m.name, tokens: n, reports: make([]*attention.Report, len(kinds))})
	}
	o.progress.Begin(fmt.Sprintf("%d tokens", n), len(kinds)*len(methods))
	defer o.progress.End()
	out := matrix(n, o.heads*o.dim)
	for i, kind := range kinds {
		s := kind.make(o, n)
		for j, m := range methods {
			o.progress.Add(min(i+j, 1)) // the one before
			if m.only != "" && m.only != kind.name {
				continue
			}
			begin := time.Now()
			if err := m.attend(ctx, out, s); err != nil {
				return nil, err
			}
			if t, r := time.Since(begin).Seconds(), results[j]; r.seconds == 0 || t < r.seconds {
				r.seconds = t
			}
			results[j].reports[i], err = reporter.Report(ctx, &attention.ReportCall{Out: out, Q: s.q, K: []blas32.General{s.k}, V: []blas32.General{s.v}, Visible: m.seen})
			if err != nil {
				return nil, err
			}
		}
	}
	return results, nil
}
