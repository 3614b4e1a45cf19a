package kvcache

import (
	"slices"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
)

// Quest reads the pages whose keys could have the largest logits (Tang et al. 2024, arXiv
// 2406.10774): from the least and the largest of each feature of a page's keys follows
// that no logit of the page is more than
//
//	u = sum over d of max(q[d] max[d], q[d] min[d]) = [max(q, 0) | min(q, 0)].[max | min]
//
// and the pages with the largest u are read whole, the last one always. It reads 2/Page
// of the keys' bytes to choose. A bound of 16 keys in 128 dimensions says little: see the
// package's table of recall.
type Quest struct {
	// Page is how many tokens a page has; 0 stands for 16.
	Page int
	// Budget is how many tokens are read, in whole pages, the last page's among them.
	Budget int
	// Group says who chooses where query heads share a key head; 0 is GroupSum.
	Group GroupChoice
	// RankLast ranks the last page like the others and reads at least three, as the
	// published evaluation does, of single queries.
	RankLast bool
}

func (p Quest) page() int {
	if p.Page == 0 {
		return 16
	}
	return p.Page
}

func (p Quest) check(cfg *Config) error {
	switch {
	case p.Page < 0 || p.Page > 1<<16:
		return check.Errorf(ErrConfig, "kvcache: Quest.Page is %d, want 0 to 65,536", p.Page)
	case p.Budget < p.page():
		return check.Errorf(ErrConfig, "kvcache: Quest.Budget is %d, want at least a Page = %d", p.Budget, p.page())
	}
	if cfg.Rotation != nil && cfg.Positions != AtOrigin {
		return check.Errorf(ErrConfig, "kvcache: Quest with Positions %d, want AtOrigin: it bounds logits of rotated keys", cfg.Positions)
	}
	return checkTop("Quest.Budget", p.Budget, p.Group)
}

func (p Quest) newIndex(a *Attention) index {
	return &questIndex{p: p, bounds: make([][]float32, a.cfg.KVHeads)}
}

// questIndex is the bounds of the pages of each key head: [pages][2 kCols], the largest of
// each feature and then the least.
type questIndex struct {
	p      Quest
	bounds [][]float32
	rows   int // tokens in them
}

func (x *questIndex) observes() bool   { return false }
func (x *questIndex) observe(*run)     {}
func (x *questIndex) keep(*State, int) {}

func (x *questIndex) append(r *run) error {
	r.works = atLeast(r.works, 1)
	w := &r.works[0]
	w.r = r
	for g := range x.bounds {
		x.bounds[g] = x.extend(x.bounds[g], w, r.state, g, r.first, r.state.n)
	}
	x.rows = r.state.n
	return nil
}

func atLeast(list []work, n int) []work {
	for len(list) < n {
		list = append(list, work{})
	}
	return list
}

// extend takes rows from ... to into the bounds of a key head.
func (x *questIndex) extend(bounds []float32, w *work, s *State, head, from, to int) []float32 {
	kc, d, page := w.r.kCols(), w.r.op.cfg.HeadDim, x.p.page()
	w.keys = scratch.Floats(w.keys, scanBlock*d)
	for row := from; row < to; {
		g, ok := s.heads[head].Segment(s.position(head, row))
		if !ok {
			panic("kvcache: a row that is not held")
		}
		n := min(g.Tokens, to-row, scanBlock)
		k := mat.Of(w.keys, n, d)
		if err := g.Keys(k, 0, 0); err != nil {
			panic(err)
		}
		for i := range n {
			at := (row + i) / page * 2 * kc
			key := mat.Row(k, i)
			if at == len(bounds) {
				bounds = slices.Grow(bounds, 2*kc)[:at+2*kc]
				clear(bounds[at:])
				copy(bounds[at:], key)
				copy(bounds[at+kc:], key)
				continue
			}
			high, low := bounds[at:][:d], bounds[at+kc:][:d]
			for j, v := range key {
				if v > high[j] || v != v {
					high[j] = v
				}
				if v < low[j] || v != v {
					low[j] = v
				}
			}
		}
		row += n
	}
	return bounds
}

func (x *questIndex) choose(r *run) error {
	cfg := &r.op.cfg
	page, n := x.p.page(), r.state.n
	pages := (n + page - 1) / page
	last := pages - 1 // whose tokens are always read
	take := x.p.Budget/page - 1
	if x.p.RankLast && r.x == 1 {
		last, take = pages, max(3, x.p.Budget/page)
	}
	if last <= take {
		return nil
	}
	if err := x.scan(r, last); err != nil {
		return err
	}
	lists := x.p.Group.lists(cfg)
	r.choose1(lists)
	for i := range lists {
		list := r.choice.Lists[i]
		for _, p := range r.pickTop(r.groupScores(i, x.p.Group), take) {
			list = addRun(list, Run{From: int(p) * page, To: min((int(p)+1)*page, n)})
		}
		if last < pages {
			list = addRun(list, Run{From: last * page, To: n})
		}
		r.choice.Lists[i] = list
	}
	if x.p.RankLast && r.x == 1 && cfg.Recent == 0 {
		r.tail = n
	}
	return nil
}

// scan makes the upper bounds of the first pages for each query head: the largest over the
// chunk's queries.
func (x *questIndex) scan(r *run, pages int) error {
	cfg := &r.op.cfg
	r.sel.log = grown(r.sel.log, cfg.Heads*pages)
	r.sel.from, r.sel.to, r.sel.pages = 0, pages, x
	defer r.dropPages()
	r.report.Index += int64(pages) * int64(cfg.KVHeads) * int64(2*cfg.HeadDim) * 4
	workers := r.op.workersFor(r.call.Workers, int64(pages*r.x)*int64(2*cfg.Heads*cfg.HeadDim))
	r.works = atLeast(r.works, workers)
	return r.group.RunAs(r.ctx, "kvcache", workers, cfg.KVHeads, r.scan)
}

func (r *run) dropPages() { r.sel.pages = nil }

// scanPages scores the pages of one key head.
func (w *work) scanPages(x *questIndex, g int) {
	r := w.r
	kc, d, group, pages := r.kCols(), r.op.cfg.HeadDim, r.op.group, r.sel.to
	bounds := kernel.Strided{Rows: pages, Cols: 2 * kc, Stride: 2 * kc, Float32: x.bounds[g]}
	for i := range r.x {
		w.head, w.packed = scratch.Floats(w.head, group*2*kc), scratch.Floats(w.packed, group*2*kc)
		clear(w.head[:group*2*kc])
		m := mat.Of(w.head, group, 2*kc)
		for h := range group {
			row := mat.Row(m, h)
			for j, v := range mat.Part(r.q, i, (g*group+h)*d, d) {
				if v > 0 {
					row[j] = v
				} else {
					row[kc+j] = v
				}
			}
		}
		r.op.tile.PackQueries(w.packed[:group*2*kc], m)
		to := mat.Of(r.sel.log[g*group*pages:], group, pages)
		if i == 0 {
			r.op.tile.Scores(to, w.packed[:group*2*kc], bounds, nil)
			continue
		}
		w.scores = grown(w.scores, group*pages)
		r.op.tile.Scores(mat.Of(w.scores, group, pages), w.packed[:group*2*kc], bounds, nil)
		for h := range group {
			for j, v := range w.scores[h*pages:][:pages] {
				if at := &mat.Row(to, h)[j]; v > *at || v != v {
					*at = v
				}
			}
		}
	}
}

func (x *questIndex) truncate(s *State, n int, try bool) bool {
	if try || n >= x.rows {
		return true
	}
	page, kc := x.p.page(), whole(s.op.cfg.HeadDim, s.op.tile.Unit())
	for g := range x.bounds {
		x.bounds[g] = x.bounds[g][:n/page*2*kc]
		w := work{r: &run{op: s.op}}
		x.bounds[g] = x.extend(x.bounds[g], &w, s, g, n/page*page, n)
	}
	x.rows = n
	return true
}

func (x *questIndex) clone() index {
	c := *x
	c.bounds = cloneLists(x.bounds)
	return &c
}

func (x *questIndex) bytes() (n int64) {
	for _, b := range x.bounds {
		n += 4 * int64(cap(b))
	}
	return n
}

// save writes nothing: bounds are made anew of the keys.
func (x *questIndex) save(*state.Writer) {}

func (x *questIndex) load(_ *state.Reader, s *State) {
	w := work{r: &run{op: s.op}}
	for g := range x.bounds {
		x.bounds[g] = x.extend(nil, &w, s, g, 0, s.n)
	}
	x.rows = s.n
}
