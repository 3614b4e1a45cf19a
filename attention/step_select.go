package attention

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// Selection is what of a state the queries of a call see, in place of all: runs of
// positions, ascending, none twice. What they do not name is not read; what they name
// and the state does not hold, or a query may not see, is as if it were not named. An
// empty Selection shows nothing.
type Selection []Run

// Run is the positions From to To, the last not included.
type Run struct{ From, To int }

// Tokens returns how many positions the runs name.
func (x Selection) Tokens() (n int) {
	for _, run := range x {
		n += run.To - run.From
	}
	return n
}

// Read counts what calls have read of states. A token counts once for each time that it
// is read: a call of many queries goes over its keys several times.
type Read struct{ Tokens, Bytes int64 }

// checkSelect checks the selections and the outputs that go by them.
func (d *stepRun) checkSelect() error {
	c := &d.call
	if c.Select != nil && len(c.Select) != len(d.states) {
		return check.Errorf(ErrCall, "attention: Select has %d elements, want one for each state = %d", len(c.Select), len(d.states))
	}
	for i, list := range c.Select {
		end, most := 0, d.states[i].n+d.news(i)
		for n, run := range list {
			if run.From < end || run.To < run.From || run.To > most {
				return check.Errorf(ErrCall, "attention: Select[%d][%d] is %d to %d after %d, want ascending positions up to %d", i, n, run.From, run.To, end, most)
			}
			end = run.To
		}
	}
	if c.Weights == nil {
		return nil
	}
	if len(c.Weights) != len(d.states) {
		return check.Errorf(ErrCall, "attention: Weights has %d elements, want one for each state = %d", len(c.Weights), len(d.states))
	}
	for i, w := range c.Weights {
		if d.states[i].cfg.Window > 0 {
			return check.Errorf(ErrCall, "attention: Weights with a ring")
		}
		n := d.states[i].Held() + d.news(i)
		if c.Select != nil {
			n = c.Select[i].Tokens()
		}
		if heads := d.op.cfg.Heads; n > math.MaxInt/heads || len(w) != n*heads {
			return check.Errorf(ErrShape, "attention: Weights[%d] has %d elements, want tokens*Heads = %d*%d", i, len(w), n, heads)
		}
	}
	return d.checkWeightsShared()
}

// checkWeightsShared checks that Weights share no elements with other matrices.
func (d *stepRun) checkWeightsShared() error {
	c := &d.call
	for i := range c.Weights {
		m := d.weightsOf(i)
		shared := mat.Overlap(m, c.Q) || mat.Overlap(m, c.Dst) || mat.Overlap(m, c.LSE) || mat.Overlap(m, c.Mass) || mat.Overlap(m, c.Entropy) || mat.Overlap(m, c.LogWeights)
		for n := range c.K {
			shared = shared || mat.Overlap(m, c.K[n])
		}
		for n := range c.V {
			shared = shared || mat.Overlap(m, c.V[n])
		}
		for n := range i {
			shared = shared || mat.Overlap(m, d.weightsOf(n))
		}
		for n := range c.Extra {
			e := &c.Extra[n]
			shared = shared || mat.Overlap(m, e.LogWeights)
			for k := range e.K {
				shared = shared || mat.Overlap(m, e.K[k])
			}
			for k := range e.V {
				shared = shared || mat.Overlap(m, e.V[k])
			}
		}
		if shared {
			return check.Errorf(ErrShape, "attention: Weights[%d] shares elements with another matrix", i)
		}
	}
	return nil
}

// weightsOf is Weights of a state as a matrix [tokens, Heads].
func (d *stepRun) weightsOf(b int) blas32.General {
	heads := d.op.cfg.Heads
	return mat.Of(d.call.Weights[b], len(d.call.Weights[b])/heads, heads)
}

// seenSpans adds the spans of a state's tokens from position from to position to that
// the call selects.
func (d *stepRun) seenSpans(b, from, to int) {
	s, begin := d.states[b], len(d.spans)
	if d.call.Select == nil {
		d.spans = s.spans(d.spans, from, to)
		if d.call.Weights != nil {
			row := s.rowsBefore(from)
			for i := begin; i < len(d.spans); i++ {
				d.spans[i].order = row
				row += d.spans[i].n
			}
		}
		return
	}
	if s.cfg.Window > 0 {
		d.ring = s.spans(d.ring[:0], from, to)
	}
	order := 0 // of the run's first position among those named
	for i, list := 0, d.call.Select[b]; i < len(list); {
		run := list[i]
		first := order - run.From
		for { // runs that touch are one
			order += list[i].To - list[i].From
			if i++; i == len(list) || list[i].From != run.To {
				break
			}
			run.To = list[i].To
		}
		n := len(d.spans)
		if s.cfg.Window > 0 {
			d.ringRun(run)
		} else if lo, hi := max(run.From, from), min(run.To, to); lo < hi {
			d.spans = s.spans(d.spans, lo, hi)
		}
		for ; n < len(d.spans); n++ {
			d.spans[n].order, d.spans[n].named = first, true
		}
	}
}

// ringRun adds the part of a ring's spans that a run names.
func (d *stepRun) ringRun(run Run) {
	for i := range d.ring {
		x := &d.ring[i]
		if lo, hi := x.before(int64(run.From)), x.before(int64(run.To)); lo < hi {
			d.spans = append(d.spans, x.cutOut(lo, hi-lo))
		}
	}
}

// weightRow is the row of Weights that is token i's.
func (x *span) weightRow(i int) int {
	if x.named {
		return x.order + x.at(i)
	}
	return x.order + i
}

// countRead adds a job's keys to Call.Read.
func (d *stepRun) countRead(j *job) {
	if r := d.call.Read; r != nil {
		r.Tokens += int64(j.keys)
		r.Bytes += int64(j.keys) * d.op.tokenBytes(&j.st.cfg)
	}
}

// addWeights adds the weights that one query head gave to the pieces.
func (w *stepWork) addWeights(head int, part []float32) {
	out := w.d.weightsOf(w.j.seq)
	for n := range w.pieces {
		p := &w.pieces[n]
		for k, x := range part[p.tile:][:p.n] {
			mat.Row(out, p.weightRow(k))[head] += x
		}
	}
}
