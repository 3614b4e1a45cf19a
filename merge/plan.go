package merge

import (
	"iter"
	"math"
	"slices"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/scratch"
)

// Plan says which tokens become one: for each of n tokens the one of m <= n merged
// tokens that it belongs to. A Matcher makes it from a metric; it is then applied to
// anything that has a row for each token, and undone by Unmerge.
//
// The zero value is the plan of no tokens. A Plan is reused by whatever sets it, in
// its memory. It may be read by several goroutines at once.
type Plan struct {
	index   []int32 // of a token: its merged token, or dropped
	count   []int32 // of a merged token: its members
	first   []int32 // its first member
	next    []int32 // of a token: the next member of its merged token, or none
	kept    []int32 // the member whose place it took
	offsets []int   // where each sequence of merged tokens begins, and at last m
	spare   struct {
		index, count, kept []int32
		keep               []bool
	}
}

const (
	dropped = -1
	none    = -1
)

// Tokens returns n, how many tokens the plan merges.
func (p *Plan) Tokens() int { return len(p.index) }

// Len returns m, how many tokens are left.
func (p *Plan) Len() int { return len(p.count) }

// Map returns for each token the merged token that it belongs to, -1 for one that is
// left out: the origin of every merged token in 4n bytes. Like the other slices
// of a plan it is the plan's own, to be read until the plan is set anew.
func (p *Plan) Map() []int32 { return p.index }

// Counts returns how many tokens each merged token has.
func (p *Plan) Counts() []int32 { return p.count }

// First returns the first token of each merged token.
func (p *Plan) First() []int32 { return p.first }

// Members ranges over the tokens of merged token j, in order; there are none where j is
// not one from 0 to Len-1.
func (p *Plan) Members(j int) iter.Seq[int] {
	return func(yield func(int) bool) {
		if j < 0 || j >= len(p.first) {
			return
		}
		for t := p.first[j]; t >= 0; t = p.next[t] {
			if !yield(int(t)) {
				return
			}
		}
	}
}

// Kept returns the token whose place each merged token has taken: the destination
// of the matching.
func (p *Plan) Kept() []int32 { return p.kept }

// Offsets returns where each sequence of a packed batch begins among the merged
// tokens, and at last Len: Offsets of what follows.
func (p *Plan) Offsets() []int { return p.offsets }

// SetIdentity makes p the plan that leaves n tokens, one sequence, as they are. Errors match
// ErrShape.
func (p *Plan) SetIdentity(n int) error {
	if n < 0 || n > maxTokens {
		return check.Errorf(ErrShape, "merge: %d tokens, want 0 to %d", n, maxTokens)
	}
	p.index, p.count = scratch.Sized(p.index, n), scratch.Sized(p.count, n)
	for t := range p.index {
		p.index[t], p.count[t] = int32(t), 1
	}
	p.link()
	p.kept = append(p.kept[:0], p.first...)
	p.offsets = append(p.offsets[:0], 0, n)
	return nil
}

// SetMap makes p the plan of a clustering: index[t] in [0, merged) is the cluster of
// token t, -1 leaves a token out, and every cluster has a token. All is one sequence,
// and a merged token takes the place of its first member. Errors match ErrShape.
func (p *Plan) SetMap(index []int32, merged int) error {
	if len(index) > maxTokens || merged < 0 || merged > len(index) {
		return check.Errorf(ErrShape, "merge: %d merged tokens of %d, want 0 to that many", merged, len(index))
	}
	count := scratch.Sized(p.spare.count, merged)
	p.spare.count = count
	clear(count)
	for t, j := range index {
		if j < dropped || int(j) >= merged {
			return check.Errorf(ErrShape, "merge: index[%d] is %d, want -1 to %d", t, j, merged-1)
		}
		if j >= 0 {
			count[j]++
		}
	}
	if j := slices.Index(count, 0); j >= 0 {
		return check.Errorf(ErrShape, "merge: no token belongs to merged token %d of %d", j, merged)
	}
	p.index = append(p.index[:0], index...)
	p.count, p.spare.count = count, p.count
	p.link()
	p.kept = append(p.kept[:0], p.first...)
	p.offsets = append(p.offsets[:0], 0, merged)
	return nil
}

// SetKeep makes p the plan that keeps the tokens for which keep is true and leaves the
// others out: Apply packs the tokens that a mask, or a router, has chosen, and Unmerge
// puts them back between zeros. Errors match ErrShape, of more than 2^30 - 1 tokens.
func (p *Plan) SetKeep(keep []bool) error {
	if len(keep) > maxTokens {
		return check.Errorf(ErrShape, "merge: %d tokens, want 0 to %d", len(keep), maxTokens)
	}
	p.index, p.count = scratch.Sized(p.index, len(keep)), p.count[:0]
	for t, k := range keep {
		p.index[t] = dropped
		if k {
			p.index[t] = int32(len(p.count))
			p.count = append(p.count, 1)
		}
	}
	p.link()
	p.kept = append(p.kept[:0], p.first...)
	p.offsets = append(p.offsets[:0], 0, len(p.count))
	return nil
}

// Compose makes p the plan of first and then second: one that merges, and undoes, in a
// single step. second must be of as many tokens as first leaves. p may be either.
//
// Sums, maxima and size-weighted means by the composed plan are those by both in turn;
// a plain Mean counts every token of first once, where two means in turn do not.
// Offsets are second's. It costs O(n). Errors match ErrCall.
func (p *Plan) Compose(first, second *Plan) error {
	if first == nil || second == nil {
		return check.Errorf(ErrCall, "merge: a plan to compose is nil")
	}
	if second.Tokens() != first.Len() {
		return check.Errorf(ErrShape, "merge: the second plan is of %d tokens, want those that the first leaves = %d", second.Tokens(), first.Len())
	}
	s := &p.spare
	s.index, s.count, s.kept = scratch.Sized(s.index, first.Tokens()), scratch.Sized(s.count, second.Len()), scratch.Sized(s.kept, second.Len())
	clear(s.count)
	for t, j := range first.index {
		if s.index[t] = dropped; j >= 0 {
			s.index[t] = second.index[j]
		}
		if to := s.index[t]; to >= 0 {
			s.count[to]++
		}
	}
	for j, k := range second.kept {
		s.kept[j] = first.kept[k]
	}
	if p != second {
		p.offsets = append(p.offsets[:0], second.offsets...)
	}
	p.index, s.index = s.index, p.index
	p.count, s.count = s.count, p.count
	p.kept, s.kept = s.kept, p.kept
	p.link()
	return nil
}

// link sets first and next from index and count.
func (p *Plan) link() {
	p.first, p.next = scratch.Sized(p.first, len(p.count)), scratch.Sized(p.next, len(p.index))
	for j := range p.first {
		p.first[j] = none
	}
	for t := len(p.index) - 1; t >= 0; t-- {
		if j := p.index[t]; j >= 0 {
			p.next[t], p.first[j] = p.first[j], int32(t)
		}
	}
}

// build sets the plan from target, the token that each token becomes part of (itself,
// for those that are left), and order, the tokens that are left as they shall stand.
func (p *Plan) build(target, order []int32, offsets []int) {
	n, m := len(target), len(order)
	p.index, p.count = scratch.Sized(p.index, n), scratch.Sized(p.count, m)
	p.kept = append(p.kept[:0], order...)
	for j, t := range order {
		p.index[t], p.count[j] = int32(j), 0
	}
	for t, to := range target {
		j := p.index[to]
		p.index[t] = j
		p.count[j]++
	}
	p.link()
	p.offsets = append(p.offsets[:0], offsets...)
}

// maxTokens bounds the tokens of a call, so that they fit in an int32, and maxWidth the
// columns of a metric, so that a kernel's call is short.
const (
	maxTokens = math.MaxInt32 / 2
	maxWidth  = 1 << 15
)
