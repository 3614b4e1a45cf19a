package kvcache

import (
	"fmt"
	"math"
	"slices"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/scratch"
)

// TokenSelect reads the tokens that get the most votes of all query heads, the same for
// every head (Wu et al. 2024, arXiv 2411.02886): with s[h][t] = q[h].k[t], q the mean of
// the chunk's queries turned to the positions from Recent on and k unrotated,
//
//	votes[t] = sum over h of softmax over t (s[h])
//
// over the tokens between the first Keep and the last Recent. It looks at every key.
// Positions InCache, with Config.Rotation, is what it was published with. Nothing is
// chosen while Keep + TopK + Recent hold all.
//
// There is no 1/sqrt(HeadDim) in s, so that nearly all votes underflow in float32, and
// what is not voted for is chosen by its age. Here votes are ranked by their logarithms,
// log sum over h of exp(s[h][t] - lse[h]): the same order where votes are not 0.
type TokenSelect struct {
	// TopK is how many tokens of the middle are read.
	TopK int
	// Kernel, an odd number, takes the largest of so many neighbouring votes; 0 is none.
	Kernel int
	// Bits, 8 or 4, has keys looked at in a copy of so many bits, that of Shadow: a quarter
	// or an eighth of float32's bytes. A quarter more than TopK are chosen so, and the
	// keys of these decide. 0 looks at the keys themselves, for certain. It goes with no
	// Kernel.
	Bits int
}

type tokenIndex struct {
	still
	p TokenSelect
}

func (p TokenSelect) check(cfg *Config) error {
	if p.Kernel < 0 || p.Kernel > 1<<16 || p.Kernel > 0 && p.Kernel%2 == 0 {
		return check.Errorf(ErrConfig, "kvcache: TokenSelect.Kernel is %d, want 0 or an odd number", p.Kernel)
	}
	switch {
	case p.Bits != 0 && p.Bits != 8 && p.Bits != 4:
		return check.Errorf(ErrConfig, "kvcache: TokenSelect.Bits is %d, want 0, 8 or 4", p.Bits)
	case p.Bits != 0 && p.Kernel > 1:
		return check.Errorf(ErrConfig, "kvcache: TokenSelect.Bits is %d with Kernel %d, want one of them", p.Bits, p.Kernel)
	case p.Bits != 0 && cfg.HeadDim > kernel.MaxShadowDim:
		return check.Errorf(ErrConfig, "kvcache: TokenSelect.Bits with HeadDim %d, want at most %d", cfg.HeadDim, kernel.MaxShadowDim)
	}
	return checkTop("TokenSelect.TopK", p.TopK, GroupSum)
}

// describe says what it always has of those without Bits, so that states are theirs.
func (p TokenSelect) describe() string {
	s := fmt.Sprintf("kvcache.TokenSelect{Tokens:%d Pool:%d}", p.TopK, p.Kernel)
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
	if to-from <= x.p.TopK {
		return nil
	}
	q, err := r.lookup()
	if err != nil {
		return err
	}
	if err := r.scanKeys(q, from, to); err != nil {
		return err
	}
	if x.p.Kernel <= 1 && to-from >= max(pruneFrom*x.p.TopK, 4*voteBlock) {
		rows, err := r.bestVotes(x.p.TopK)
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
	if x.p.Kernel > 1 {
		r.sel.pooled = grown(r.sel.pooled, len(votes))
		pool(r.sel.pooled[:len(votes)], votes, x.p.Kernel, MaxPool)
		r.sel.votes, r.sel.pooled = r.sel.pooled, r.sel.votes
		votes = r.sel.votes[:len(votes)]
	}
	r.choose1(1)
	r.choice.Lists[0] = addRows(r.choice.Lists[0], r.pickTop(votes, x.p.TopK), from)
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
