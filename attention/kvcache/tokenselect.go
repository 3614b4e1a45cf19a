package kvcache

import (
	"fmt"
	"math"
	"slices"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
)

// TokenSelect reads the tokens that get the most votes of all query heads, the same for
// every head (Wu et al. 2024, arXiv 2411.02886): with s[h][t] = q[h].k[t], q the mean of
// the chunk's queries turned to the positions from Recent on and k unrotated,
//
//	votes[t] = sum over h of softmax over t (s[h])
//
// over the tokens between the first Keep and the last Recent. It looks at every key.
// Positions InCache, with Config.Rotation, is what it was published with. Nothing is
// chosen while Keep + Tokens + Recent hold all.
//
// There is no 1/sqrt(HeadDim) in s, so that nearly all votes underflow in float32, and
// what is not voted for is chosen by its age. Here votes are ranked by their logarithms,
// log sum over h of exp(s[h][t] - lse[h]): the same order where votes are not 0.
type TokenSelect struct {
	// Tokens is how many of the middle are read.
	Tokens int
	// Pool, an odd number, takes the largest of so many neighbouring votes; 0 is none.
	Pool int
	// Bits, 8 or 4, has keys looked at in a copy of so many bits, that of Shadow: a quarter
	// or an eighth of float32's bytes. A quarter more than Tokens are chosen so, and the
	// keys of these decide. 0 looks at the keys themselves, for certain. It goes with no
	// Pool.
	Bits int
}

type tokenIndex struct {
	still
	p TokenSelect
}

func (p TokenSelect) check(cfg *Config) error {
	if p.Pool < 0 || p.Pool > 1<<16 || p.Pool > 0 && p.Pool%2 == 0 {
		return check.Errorf(ErrConfig, "kvcache: TokenSelect.Pool is %d, want 0 or an odd number", p.Pool)
	}
	switch {
	case p.Bits != 0 && p.Bits != 8 && p.Bits != 4:
		return check.Errorf(ErrConfig, "kvcache: TokenSelect.Bits is %d, want 0, 8 or 4", p.Bits)
	case p.Bits != 0 && p.Pool > 1:
		return check.Errorf(ErrConfig, "kvcache: TokenSelect.Bits is %d with Pool %d, want one of them", p.Bits, p.Pool)
	case p.Bits != 0 && cfg.HeadDim > kernel.MaxShadowDim:
		return check.Errorf(ErrConfig, "kvcache: TokenSelect.Bits with HeadDim %d, want at most %d", cfg.HeadDim, kernel.MaxShadowDim)
	}
	return checkTop("TokenSelect.Tokens", p.Tokens, GroupSum)
}

// describe says what it always has of those without Bits, so that states are theirs.
func (p TokenSelect) describe() string {
	s := fmt.Sprintf("kvcache.TokenSelect{Tokens:%d Pool:%d}", p.Tokens, p.Pool)
	if p.Bits != 0 {
		s += fmt.Sprintf(" of %d bits", p.Bits)
	}
	return s
}

func (p TokenSelect) newIndex(a *Attention) index {
	if p.Bits != 0 {
		return newTokenCopy(p, a)
	}
	return tokenIndex{p: p}
}
func (x tokenIndex) clone() index { return x }

func (x tokenIndex) choose(r *run) error {
	from, to := r.middle(0)
	if to-from <= x.p.Tokens {
		return nil
	}
	q, err := r.lookup()
	if err != nil {
		return err
	}
	if err := r.scanKeys(q, from, to); err != nil {
		return err
	}
	if x.p.Pool <= 1 && to-from >= max(pruneFrom*x.p.Tokens, 4*voteBlock) {
		rows, err := r.bestVotes(x.p.Tokens)
		if err != nil {
			return err
		}
		r.choose1(1)
		r.choice.Lists[0] = addRows(r.choice.Lists[0], rows, from)
		return nil
	}
	votes, err := r.logVotes()
	if err != nil {
		return err
	}
	if x.p.Pool > 1 {
		r.sel.pooled = grown(r.sel.pooled, len(votes))
		pool(r.sel.pooled[:len(votes)], votes, x.p.Pool, MaxPool)
		r.sel.votes, r.sel.pooled = r.sel.pooled, r.sel.votes
		votes = r.sel.votes[:len(votes)]
	}
	r.choose1(1)
	r.choice.Lists[0] = addRows(r.choice.Lists[0], r.pickTop(votes, x.p.Tokens), from)
	return nil
}

// voteBlock is how many tokens' votes are added up at a time.
const voteBlock = 1024

// logVotes returns the logarithm of each token's votes.
func (r *run) logVotes() ([]float32, error) {
	heads, n := r.op.cfg.Heads, r.sel.to-r.sel.from
	r.sel.votes = grown(r.sel.votes, n)
	r.sel.sums = scratch.Floats(r.sel.sums, heads)
	workers := r.op.workersFor(r.call.Workers, 16*int64(heads)*int64(n))
	r.works = atLeast(r.works, workers)
	if r.sum == nil {
		r.sum, r.vote, r.peak = r.sumTask, r.voteTask, r.peakTask
	}
	if err := r.group.RunAs(r.ctx, "kvcache", workers, heads, r.sum); err != nil {
		return nil, err
	}
	task := r.vote
	if r.sel.peaks {
		task = r.peak
	}
	return r.sel.votes[:n], r.group.RunAs(r.ctx, "kvcache", workers, (n+voteBlock-1)/voteBlock, task)
}

// pruneFrom is from how many tokens for each that is read, and no fewer than four blocks,
// most are ruled out first.
const pruneFrom = 4

// bestVotes returns the n tokens with the most votes, ascending. A token's votes are at least
// those of one of its heads, and at most as many times those of its best one as there are
// heads: only tokens whose best is near the n-th best's are added up.
func (r *run) bestVotes(n int) ([]int32, error) {
	r.sel.peaks = true
	peaks, err := r.logVotes()
	if r.sel.peaks = false; err != nil {
		return nil, err
	}
	heads := r.op.cfg.Heads
	r.sel.best.Reset(n)
	r.sel.best.Push(peaks, 0)
	_, some := r.sel.best.Selected()
	least := float32(math.Inf(1))
	for _, x := range some {
		if least = min(least, x); x != x { // too few numbers: all are added up
			least = negInf
			break
		}
	}
	least -= float32(math.Log(float64(heads))) + 1e-3
	ids, sums := r.sel.ids[:0], r.sel.pooled[:0]
	for t, x := range peaks {
		if x < least {
			continue
		}
		sum := float64(0)
		for h := range heads {
			sum += math.Exp(float64(r.scoresOf(h)[t] - r.sel.sums[h] - x))
		}
		if !math.IsInf(float64(x), -1) { // else every head has -Inf
			x += float32(math.Log(sum))
		}
		ids, sums = append(ids, int32(t)), append(sums, x)
	}
	r.sel.ids, r.sel.pooled = ids, sums
	rows := r.sel.best.Ascending(sums, n)
	for i, j := range rows {
		rows[i] = ids[j]
	}
	return rows, nil
}

// peakTask finds the votes of each token's best head in a block of tokens.
func (r *run) peakTask(worker, task int) {
	w, at := &r.works[worker], task*voteBlock
	m := min(voteBlock, r.sel.to-r.sel.from-at)
	w.top = scratch.Floats(w.top, voteBlock)
	top, part := r.sel.votes[at:at+m], w.top[:m]
	for h := range r.op.cfg.Heads {
		copy(part, r.scoresOf(h)[at:at+m])
		asm.Axpy(part, -r.sel.sums[h], voteOnes[:m])
		if h == 0 {
			copy(top, part)
		} else {
			asm.Maximum(top, top, part)
		}
	}
}

var voteOnes = slices.Repeat([]float32{1}, voteBlock)

// sumTask finds what the votes of a head are divided by.
func (r *run) sumTask(worker, head int) {
	w := &r.works[worker]
	w.top = scratch.Floats(w.top, voteBlock)
	r.sel.sums[head] = logSumExp(r.scoresOf(head), w.top)
}

// voteTask adds up the votes of a block of tokens.
func (r *run) voteTask(worker, task int) {
	w, heads := &r.works[worker], r.op.cfg.Heads
	at := task * voteBlock
	m := min(voteBlock, r.sel.to-r.sel.from-at)
	w.top, w.sums = scratch.Floats(w.top, voteBlock), scratch.Floats(w.sums, voteBlock)
	top, sum, part := r.sel.votes[at:at+m], w.sums[:m], w.top[:m]
	for h := range heads {
		copy(part, r.scoresOf(h)[at:at+m])
		asm.Axpy(part, -r.sel.sums[h], voteOnes[:m])
		if h == 0 {
			copy(top, part)
		} else {
			asm.Maximum(top, top, part)
		}
	}
	clear(sum)
	for h := range heads {
		copy(part, r.scoresOf(h)[at:at+m])
		asm.Axpy(part, -r.sel.sums[h], voteOnes[:m])
		asm.Axpy(part, -1, top)
		asm.Exp(part, part)
		asm.Add(sum, sum, part)
	}
	for i := range top {
		if !math.IsInf(float64(top[i]), -1) { // else every head has -Inf
			top[i] += float32(math.Log(float64(sum[i])))
		}
	}
}

// logSumExp returns log sum exp(x), with working memory of voteBlock elements.
func logSumExp(x, part []float32) float32 {
	if len(x) == 0 {
		return negInf
	}
	top := asm.Max(x)
	if math.IsInf(float64(top), 0) || top != top {
		return top
	}
	const nothing = 60 // e^-60 of a million tokens is less than a sum of 1 or more rounds to
	sum := float64(0)
	for at := 0; at < len(x); at += voteBlock {
		m := min(voteBlock, len(x)-at)
		if asm.Max(x[at:at+m]) >= top-nothing {
			sum += float64(kernel.ExpSum(part[:m], x[at:at+m], top))
		}
	}
	return top + float32(math.Log(sum))
}

// Cached wraps a selector so that a choice serves later queries that are like the ones it
// was made for (the Selection Cache of TokenSelect).
type Cached struct {
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
	case Cached, InfLLM, RetroInfer, Shadow:
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
	for i, list := range r.choice.Lists {
		x.choice.Lists[i] = append(x.choice.Lists[i][:0], list...)
	}
	x.at, x.tail = r.state.n, max(0, min(r.first, r.state.n-cfg.Recent))
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
	w.Ints(int64(x.at), int64(x.tail), int64(len(x.query)), int64(len(x.choice.Lists)))
	w.Floats(x.query)
	for _, list := range x.choice.Lists {
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
			list, last = append(list, Run{int(from), int(to)}), to
		}
		x.choice.Lists = append(x.choice.Lists, list)
	}
}
