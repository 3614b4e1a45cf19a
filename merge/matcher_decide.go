package merge

import (
	"context"
	"math"
	"slices"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/scratch"
)

// decide chooses the sources that merge and builds the plan.
func (r *matchRun) decide(ctx context.Context) error {
	r.target, r.order, r.offsets = scratch.Sized(r.target, r.call.Metric.Rows), r.order[:0], append(r.offsets[:0], 0)
	for t := range r.target {
		r.target[t] = int32(t)
	}
	for i := range r.seqs {
		if err := ctx.Err(); err != nil {
			return err
		}
		s := &r.seqs[i]
		if err := r.rank(i, s); err != nil {
			return err
		}
		r.arrange(s)
		r.offsets = append(r.offsets, len(r.order))
	}
	r.call.Plan.build(r.target, r.order, r.offsets)
	return nil
}

// rank orders the sources of sequence i, the most similar to their destinations first,
// and merges the first of them. It leaves the sources' indices in from, without those
// that merge, in r.ranked: in order where the plan needs one.
func (r *matchRun) rank(i int, s *sequence) error {
	r.ranked = r.ranked[:0]
	found := 0
	for at := s.froms.from; at < s.froms.to; at++ {
		if r.to[at] != none {
			found++
		}
		r.ranked = append(r.ranked, uint64(descending(r.score[at]))<<32|uint64(at))
	}
	n, err := r.number(i, s, found)
	if err != nil {
		return err
	}
	if r.m.cfg.Order == Published {
		slices.Sort(r.ranked)
	} else {
		smallest(r.ranked, n)
	}
	for _, k := range r.ranked[:n] {
		at := uint32(k)
		r.target[r.from[at]] = r.cand[r.to[at]]
	}
	r.ranked = append(r.ranked[:0], r.ranked[n:]...)
	return nil
}

// number returns how many tokens of sequence i merge away, given how many sources have
// found a destination.
func (r *matchRun) number(i int, s *sequence, found int) (int, error) {
	c, tokens := &r.call, s.to-s.from
	most, what := found, "R"
	if r.m.cfg.Method == ToMe { // as published; it is fewer for odd numbers of tokens
		most = min(most, (s.froms.len()+s.can.len())/2)
	}
	want, bounded := c.R, c.AtMost
	switch {
	case c.Counts != nil:
		want, what = c.Counts[i], "Counts"
	case c.Ratio > 0:
		want, bounded = int(c.Ratio*float64(tokens)), true
	case r.m.cfg.Method == KTh:
		want = most
	case c.Above != nil && c.R == 0:
		want, bounded = most, true
	}
	if want > most && !bounded {
		return 0, check.Errorf(ErrCall, "merge: %s asks for %d tokens to merge away, but of sequence %d, of %d tokens, at most %d can; AtMost takes as many as can", what, want, i, tokens, most)
	}
	want = min(want, most)
	if c.Above != nil {
		above := 0
		for at := s.froms.from; at < s.froms.to; at++ {
			if r.to[at] != none && r.score[at] > *c.Above {
				above++
			}
		}
		want = min(want, above)
	}
	return max(0, min(want, tokens-c.MinTokens)), nil
}

// arrange appends the tokens that are left of a sequence to order.
func (r *matchRun) arrange(s *sequence) {
	left := func(t int32) bool { return r.target[t] == t }
	if r.m.cfg.Order == Preserve || !slices.ContainsFunc(s.src.of(r.src), func(t int32) bool { return !left(t) }) {
		for t := int32(s.from); t < int32(s.to); t++ {
			if left(t) {
				r.order = append(r.order, t)
			}
		}
		return
	}
	// Where the class token is one of the sources they keep their order.
	ascending := r.m.cfg.ClassToken && !r.m.cfg.Method.energetic() && r.m.cfg.Method != Grid
	begin := len(r.order)
	r.order = append(r.order, s.head.of(r.head)...)
	if !ascending {
		for _, k := range r.ranked {
			r.order = append(r.order, r.from[uint32(k)])
		}
	}
	for _, t := range s.src.of(r.src) { // all, or those that took no part
		if left(t) && (ascending || r.inverse[t] == 0) {
			r.order = append(r.order, t)
		}
	}
	at := len(r.order)
	r.order = append(r.order, s.dst.of(r.dst)...)
	r.order = append(r.order, s.tail.of(r.tail)...)
	if r.m.cfg.DistillToken { // the second token comes second again
		distill := r.order[at]
		copy(r.order[begin+2:at+1], r.order[begin+1:at])
		r.order[begin+1] = distill
	}
}

// descending maps a score to an integer that is the less, the greater the score.
func descending(score float32) uint32 {
	if score == 0 {
		score = 0 // not -0
	}
	bits := math.Float32bits(score)
	if bits>>31 == 0 {
		return ^bits &^ (1 << 31)
	}
	return bits
}

// smallest brings the n smallest elements of x to its front, in any order. Elements
// differ. It partitions as long as that goes well, and sorts what is left.
func smallest(x []uint64, n int) {
	for rounds := 0; rounds < 100 && len(x) > 16; rounds++ {
		if n == 0 || n == len(x) {
			return
		}
		// The median of three is the pivot.
		a, b, c := x[0], x[len(x)/2], x[len(x)-1]
		pivot := max(min(a, b), min(max(a, b), c))
		i, j := 0, len(x)-1
		for i <= j {
			for x[i] < pivot {
				i++
			}
			for x[j] > pivot {
				j--
			}
			if i <= j {
				x[i], x[j] = x[j], x[i]
				i, j = i+1, j-1
			}
		}
		switch {
		case n <= j+1:
			x = x[:j+1]
		case n >= i:
			x, n = x[i:], n-i
		default:
			return
		}
	}
	slices.Sort(x)
}
