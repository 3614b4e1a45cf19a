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
	// unread returns what is known of the weight of what a query head does not read.
	unread(r *run, head int) unread
}

// unread is logarithms of sums of exp(logit).
type unread struct {
	rest      float64 // of what is not read, as far as known
	estimated float64 // of what of that the log-sum-exp has all the same
	most      float64 // of what is not read, at most, for certain; +Inf where nothing is
}

// scoresAlone is what is known where scores are: no certificate, for they were rounded.
func scoresAlone(rest float64) unread { return unread{rest, math.Inf(-1), math.Inf(1)} }

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
		u, read := x.unread(r, h), float64(lse)
		if part := math.Exp(u.estimated - read); part > 0 {
			read += math.Log1p(-min(part, 1))
		}
		r.report.Seen = min(r.report.Seen, 1-shareOf(u.rest, read)) // keeps NaN
		if missing := shareOf(u.most, read); missing == missing {
			r.report.Missing = max(r.report.Missing, missing)
		} else {
			r.report.Missing = 1
		}
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

func (topIndex) tells(r *run) bool                { return r.scored() }
func (topIndex) unread(r *run, head int) unread   { return scoresAlone(r.unreadScores(head)) }
func (tokenIndex) tells(r *run) bool              { return r.scored() }
func (tokenIndex) unread(r *run, head int) unread { return scoresAlone(r.unreadScores(head)) }

// Quest knows what no logit of a page exceeds.
func (x *questIndex) tells(r *run) bool { return r.op.cfg.Softcap == 0 && r.op.cfg.Scale > 0 }

func (x *questIndex) unread(r *run, head int) unread {
	cfg := &r.op.cfg
	g, kc, page := head/r.op.group, r.kCols(), x.p.page()
	list := r.choice.Lists[head*len(r.choice.Lists)/cfg.Heads]
	q := mat.Part(r.q, 0, head*cfg.HeadDim, cfg.HeadDim)
	scale := float64(cfg.Scale)
	length := scale * math.Sqrt(dot64(q, q))
	most := math.Inf(-1)
	for p, u := range r.scoresOf(head) {
		for len(list) > 0 && list[0].To <= p*page {
			list = list[1:]
		}
		if len(list) > 0 && list[0].From <= p*page {
			continue // pages are read whole
		}
		square := 0.0 // of no key of the page more
		for j, high := range x.bounds[g][p*2*kc:][:kc] {
			v := max(math.Abs(float64(high)), math.Abs(float64(x.bounds[g][p*2*kc+kc+j])))
			square += v * v
		}
		away := float64(cfg.HeadDim) * 0x1p-22 * length * math.Sqrt(square) // of sums in float32
		most = logAdd(most, scale*float64(u)+away+math.Log(float64(page)))
	}
	most += 1e-5 // of what was read
	return unread{rest: most, estimated: math.Inf(-1), most: most}
}

// RetroInfer knows clusters: what is left out weighs size exp(Scale q.c), or more.
func (x *retroIndex) tells(r *run) bool { return r.op.cfg.Softcap == 0 }

func (x *retroIndex) unread(r *run, head int) unread {
	cfg := &r.op.cfg
	g := head / r.op.group
	c, d := &x.heads[g], cfg.HeadDim
	q := mat.Part(r.q, 0, head*d, d)
	rest, estimated := math.Inf(-1), math.Inf(-1)
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
	return unread{rest, estimated, math.Inf(1)}
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
