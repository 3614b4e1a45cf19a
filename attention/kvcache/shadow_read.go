package kvcache

import (
	"math"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// read attends to what the scan found: exactly to the best tokens, and to the means of the
// others.
func (x *shadowIndex) read(r *run) error {
	w, top := r.shadowWork(x), x.policy.TopK
	for {
		if err := w.readExact(); err != nil {
			return err
		}
		missing := w.missing()
		if x.policy.Eps == 0 || missing <= x.policy.Eps {
			w.merge(missing)
			return nil
		}
		w.countScan()
		top *= 4
		more := false
		for i := range w.heads[:x.op.cfg.KVHeads] {
			more = more || w.heads[i].limit > top
		}
		if !more {
			return r.readAll(r.state)
		}
		if err := w.scan(top); err != nil {
			return err
		}
		if w.wild.Load() {
			return r.readAll(r.state)
		}
	}
}

// readExact attends to the tokens that are read exactly: dst and lse are of these alone.
func (w *shadowRun) readExact() error {
	r, a := w.r, w.x.op
	cfg, g := &a.cfg, a.group
	h := cfg.KVHeads
	for len(w.pasts) < h {
		w.pasts, w.selections = append(w.pasts, nil), append(w.selections, nil)
	}
	w.lse = scratch.Floats(w.lse, cfg.Heads)
	for i := range h {
		f, s := &w.heads[i], r.state
		w.pasts[i] = s.heads[i]
		list := w.selections[i][:0]
		add := func(row, to int) {
			if n := len(list); n > 0 && list[n-1].To == row {
				list[n-1].To = to
				return
			}
			list = append(list, attention.Run{From: row, To: to})
		}
		for _, row := range f.exact { // rows are positions: nothing is forgotten
			add(int(row), int(row)+1)
		}
		add(f.limit, s.heads[i].Held())
		w.selections[i] = list
	}
	defer clear(w.pasts)
	w.inner = attention.Call{
		Dst: mat.Of(mat.Row(r.dst, 0), h, g*cfg.ValueDim), Q: mat.Of(mat.Row(r.q, 0), h, g*cfg.HeadDim),
		LSE: mat.Of(w.lse, h, g), States: w.pasts[:h], Select: w.selections[:h], Workers: r.call.Workers,
	}
	defer func() { w.inner = attention.Call{} }()
	return named(a.op.Run(r.ctx, &w.inner))
}

// missing bounds the largest share of the weight, over query heads, that is not read.
func (w *shadowRun) missing() (share float64) {
	g := w.x.op.group
	for i := range w.x.op.cfg.Heads {
		share = max(share, shareOf(w.heads[i/g].most[i%g], float64(w.lse[i]))) // keeps NaN
	}
	return share
}

// shareOf is exp(a) of exp(a) + exp(b).
func shareOf(a, b float64) float64 {
	if math.IsInf(a, -1) {
		return 0
	}
	return 1 / (1 + math.Exp(b-a))
}

// merge puts the estimate of what was not read beside what was.
func (w *shadowRun) merge(missing float64) {
	r, a := w.r, w.x.op
	cfg, g, dv, vCols := &a.cfg, a.group, a.cfg.ValueDim, r.vCols()
	for head := range cfg.Heads {
		f, i := &w.heads[head/g], head%g
		out, lse := mat.Part(r.dst, 0, head*dv, dv), float64(w.lse[head])
		tail := f.tail[i*vCols:][:dv]
		share := shareOf(f.rest[i], lse)
		certain := shareOf(f.most[i], lse)
		length, away := 0.0, 0.0
		for c, x := range out {
			length += float64(x) * float64(x)
			away += (float64(x) - float64(tail[c])) * (float64(x) - float64(tail[c]))
		}
		bound := certain * (math.Sqrt(length) + float64(f.value))
		if !w.x.policy.Drop {
			bound += share * math.Sqrt(away)
			asm.Scale(out, float32(1-share), out)
			asm.Axpy(out, float32(share), tail)
			w.lse[head] = float32(lse - math.Log1p(-share))
			if share == 1 {
				w.lse[head] = float32(f.rest[i])
			}
		}
		r.report.Seen = min(r.report.Seen, 1-share)
		r.report.Error = max(r.report.Error, bound)
	}
	r.report.Missing = max(r.report.Missing, missing)
	r.state.noteSelections(w.selections[:cfg.KVHeads])
	w.countScan()
	for i := range cfg.KVHeads {
		f := &w.heads[i]
		held := r.state.heads[i].Held()
		r.count(i, len(f.exact)+held-f.limit, held)
	}
	lse := mat.Of(w.lse, 1, cfg.Heads)
	if cfg.Sinks != nil {
		r.addSinks(lse)
	}
	if r.lse.Rows > 0 {
		mat.Copy(r.lse, lse)
	}
}

// countScan adds what a scan read to the report.
func (w *shadowRun) countScan() {
	for i := range w.x.op.cfg.KVHeads {
		f, h := &w.heads[i], &w.x.heads[i]
		for _, b := range h.blocks[:f.blocks] {
			w.r.report.Index += b.bytes()
		}
	}
}
