package kvcache

import (
	"math"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/state"
)

// Cached wraps a selector so that a choice serves later queries that are like the ones it
// was made for (the Selection Cache of TokenSelect).
type Cached struct {
	// Select makes the choices; it must be given.
	Select Selector
	// Similarity is the cosine between the mean queries of all heads, laid end to end, from
	// which on the choice is used again: 0.9 is usual; more than 1 never, -1 always.
	Similarity float64
	// MaxAge is after how many tokens a choice is made anew; 0 is never. What has left the
	// last Recent tokens since the choice was made is not seen by anybody: Recent is a good
	// MaxAge.
	MaxAge int
	// Follow reads these tokens too, as many as the choice is old.
	Follow bool
}

type cachedIndex struct {
	inner  index
	p      Cached
	query  []float32
	choice Choice
	at     int // tokens when it was made; 0 for never
	tail   int
	cosine float64 // of the last look, for tests
	hit    bool
}

func (p Cached) check(cfg *Config) error {
	switch {
	case p.Select == nil:
		return check.Errorf(ErrConfig, "kvcache: Cached.Select is nil")
	case math.IsNaN(p.Similarity) || math.IsInf(p.Similarity, 0):
		return check.Errorf(ErrConfig, "kvcache: Cached.Similarity is %v", p.Similarity)
	case p.MaxAge < 0:
		return check.Errorf(ErrConfig, "kvcache: Cached.MaxAge is %d, want 0 or more", p.MaxAge)
	}
	switch p.Select.(type) {
	case Cached, InfLLM, RetroInfer, Shadow, Window: // Window goes by each query's own place
		return check.Errorf(ErrConfig, "kvcache: Cached.Select is a %T, whose choices are not of tokens alone", p.Select)
	}
	return p.Select.check(cfg)
}

func (p Cached) newIndex(a *Attention) index { return &cachedIndex{inner: p.Select.newIndex(a), p: p} }

func (x *cachedIndex) append(r *run) error     { return x.inner.append(r) }
func (x *cachedIndex) observes() bool          { return x.inner.observes() }
func (x *cachedIndex) observe(r *run)          { x.inner.observe(r) }
func (x *cachedIndex) keep(s *State, head int) { x.inner.keep(s, head) }

func (x *cachedIndex) choose(r *run) error {
	cfg := &r.op.cfg
	bar := r.meanQuery(r.qRaw)
	x.cosine, x.hit = math.NaN(), false
	if x.at > 0 {
		x.cosine = cosine(bar, x.query)
		age := r.state.n - x.at
		if x.cosine >= x.p.Similarity && (x.p.MaxAge == 0 || age <= x.p.MaxAge) {
			x.hit = true
			r.choose1(len(x.choice.Lists))
			for i, list := range x.choice.Lists {
				r.choice.Lists[i] = append(r.choice.Lists[i], list...)
			}
			if x.p.Follow {
				r.tail = min(r.tail, x.tail)
			}
			r.report.Reused++
			return nil
		}
	}
	x.query = append(x.query[:0], bar...)
	if err := x.inner.choose(r); err != nil || r.choice.All {
		x.at = 0
		return err
	}
	for len(x.choice.Lists) < len(r.choice.Lists) {
		x.choice.Lists = append(x.choice.Lists, nil)
	}
	x.choice.Lists = x.choice.Lists[:len(r.choice.Lists)]
	x.at, x.tail = r.state.n, max(0, min(r.first, r.state.n-cfg.Recent))
	for i, list := range r.choice.Lists {
		// With what the selector has read besides, as an unfinished block.
		x.choice.Lists[i] = addRun(append(x.choice.Lists[i][:0], list...), Run{From: r.tail, To: x.tail})
	}
	return nil
}

// cosine is that of two vectors, NaN where one is 0.
func cosine(a, b []float32) float64 {
	var ab, aa, bb float64
	for i, x := range a {
		y := b[i]
		ab, aa, bb = ab+float64(x)*float64(y), aa+float64(x)*float64(x), bb+float64(y)*float64(y)
	}
	return ab / math.Sqrt(aa*bb)
}

func (x *cachedIndex) truncate(s *State, n int, try bool) bool {
	if !x.inner.truncate(s, n, try) {
		return false
	}
	if !try && n < x.at {
		x.at = 0 // it was made of tokens, or for queries, that are gone
	}
	return true
}

func (x *cachedIndex) clone() index {
	c := *x
	c.inner = x.inner.clone()
	c.query = append([]float32(nil), x.query...)
	c.choice.Lists = cloneLists(x.choice.Lists)
	return &c
}

func (x *cachedIndex) bytes() (n int64) {
	for _, list := range x.choice.Lists {
		n += 16 * int64(cap(list))
	}
	return n + 4*int64(cap(x.query)) + x.inner.bytes()
}

func (x *cachedIndex) save(w *state.Writer) {
	lists := x.choice.Lists
	if x.at == 0 {
		lists = nil // of tokens that may be gone
	}
	w.Ints(int64(x.at), int64(x.tail), int64(len(x.query)), int64(len(lists)))
	w.Floats(x.query)
	for _, list := range lists {
		w.Ints(int64(len(list)))
		for _, run := range list {
			w.Ints(int64(run.From), int64(run.To))
		}
	}
	x.inner.save(w)
}

func (x *cachedIndex) load(r *state.Reader, s *State) {
	x.loadChoice(r, s)
	x.inner.load(r, s)
}

// loadChoice reads the choice that is kept.
func (x *cachedIndex) loadChoice(r *state.Reader, s *State) {
	cfg := &s.op.cfg
	at, tail, query, lists := r.Int(), r.Int(), r.Int(), r.Int()
	some := lists == 1 || lists == int64(cfg.KVHeads) || lists == int64(cfg.Heads) || at == 0 && lists == 0
	if at < 0 || at > int64(s.n) || tail < 0 || tail > at && at > 0 || !some || (at > 0 || query != 0) && query != int64(cfg.Heads*cfg.HeadDim) {
		r.Fail("it has a choice of %d lists for a query of %d numbers, made after %d tokens of %d", lists, query, at, s.n)
		return
	}
	x.at, x.tail = int(at), int(tail)
	x.query = r.Floats(query)
	x.choice.Lists = nil
	for range lists {
		var list []Run
		n := r.Int()
		for last := int64(0); n > 0 && r.Err() == nil; n-- {
			from, to := r.Int(), r.Int()
			if from < last || to <= from || to > int64(s.n) {
				r.Fail("it has a choice of rows %d to %d of %d", from, to, s.n)
				break
			}
			list, last = append(list, Run{From: int(from), To: int(to)}), to
		}
		x.choice.Lists = append(x.choice.Lists, list)
	}
}
