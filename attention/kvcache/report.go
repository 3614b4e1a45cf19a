package kvcache

import (
	"math"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// teller is an index that knows, after a choice for one token, what the tokens weigh that
// were not chosen.
type teller interface {
	// tells whether it does, of the run's choice.
	tells(r *run) bool
	// unread returns the logarithm of the weight, exp(logit), of what a query head does not
	// read, and of what of that its log-sum-exp has all the same, by an estimate.
	unread(r *run, head int) (rest, estimated float64)
}

// asked tells whether the caller wants to know.
func (r *run) asked() bool { return r.options != nil && r.options.Report != nil }

// telling returns the index where it can tell what the choice leaves out, and has the
// log-sum-exp of what is read kept for that.
func (r *run) telling(s *State) teller {
	x, ok := s.index.(teller)
	if !ok || !r.asked() || r.choice.All || r.x != 1 || !x.tells(r) {
		return nil
	}
	if r.lse.Rows == 0 {
		r.lseBuf = scratch.Floats(r.lseBuf, r.op.cfg.Heads)
		r.lse = mat.Of(r.lseBuf, 1, r.op.cfg.Heads)
	}
	return x
}

// tell notes in the report what share of the weight was read.
func (r *run) tell(x teller) {
	for h, lse := range mat.Row(r.lse, 0) {
		rest, estimated := x.unread(r, h)
		read := float64(lse)
		if part := math.Exp(estimated - read); part > 0 {
			read += math.Log1p(-min(part, 1))
		}
		r.report.Seen = min(r.report.Seen, 1-shareOf(rest, read)) // keeps NaN
	}
}

// scored tells whether the scores are logits but for Scale: of the query as it meets keys.
func (r *run) scored() bool {
	return r.op.cfg.Softcap == 0 && (r.op.rotation == nil || r.op.rotatedHeld())
}

// unreadScores returns the logarithm of the sum of exp(Scale s) over the scores of a query
// head whose rows the choice leaves out.
func (r *run) unreadScores(head int) float64 {
	list := r.choice.Lists[head*len(r.choice.Lists)/r.op.cfg.Heads]
	s, from := r.scoresOf(head), r.sel.from
	if len(s) == 0 {
		return math.Inf(-1)
	}
	top := r.op.cfg.Scale * asm.Max(s)
	if !finite1(float64(top)) {
		return math.NaN()
	}
	w := &r.works[0]
	w.top = scratch.Floats(w.top, voteBlock)
	sum, row := 0.0, from
	add := func(to int) {
		for row < to {
			part := w.top[:min(voteBlock, to-row)]
			asm.Scale(part, r.op.cfg.Scale, s[row-from:][:len(part)])
			sum += float64(kernel.ExpSum(part, part, top))
			row += len(part)
		}
	}
	for _, x := range list {
		add(min(x.From, r.sel.to))
		row = max(row, x.To)
	}
	add(r.sel.to)
	return float64(top) + math.Log(sum)
}

func (topIndex) tells(r *run) bool { return r.scored() }
func (topIndex) unread(r *run, head int) (float64, float64) {
	return r.unreadScores(head), math.Inf(-1)
}
func (tokenIndex) tells(r *run) bool { return r.scored() }
func (tokenIndex) unread(r *run, head int) (float64, float64) {
	return r.unreadScores(head), math.Inf(-1)
}

// RetroInfer knows clusters: what is left out weighs size exp(Scale q.c), or more.
func (x *retroIndex) tells(r *run) bool { return r.op.cfg.Softcap == 0 }

func (x *retroIndex) unread(r *run, head int) (rest, estimated float64) {
	cfg := &r.op.cfg
	g := head / r.op.group
	c, d := &x.heads[g], cfg.HeadDim
	q := mat.Part(r.q, 0, head*d, d)
	rest, estimated = math.Inf(-1), math.Inf(-1)
	clear(x.chosen)
	for _, j := range x.ranked[g][:x.exactly[g]] {
		x.chosen[j] = true
	}
	weight := func(j int) float64 {
		return float64(cfg.Scale*asm.Dot(q, c.centroids[j*d:][:d])) + math.Log(float64(c.size[j]))
	}
	for j, size := range c.size {
		if size > 0 && !x.chosen[j] {
			rest = logAdd(rest, weight(j))
		}
	}
	for _, j := range x.ranked[g][x.exactly[g]:] {
		estimated = logAdd(estimated, weight(int(j)))
	}
	return rest, estimated
}

// logAdd is log(exp(a) + exp(b)).
func logAdd(a, b float64) float64 {
	if a < b {
		a, b = b, a
	}
	if math.IsInf(b, -1) {
		return a
	}
	return a + math.Log1p(math.Exp(b-a))
}
