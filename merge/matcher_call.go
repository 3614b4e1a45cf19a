package merge

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/scratch"
)

// Call is a call of Matcher with everything optional. Only Plan and Metric are needed.
type Call struct {
	// Plan is set.
	Plan *Plan
	// Metric is [tokens, dims]: as a rule the keys of attention, averaged over heads
	// (MeanHeads). A row of zeros is as similar to any other as one at a right angle; a
	// token whose row is not finite takes no part.
	Metric blas32.General
	// Offsets packs several sequences into one call: the first row of each and at last
	// the number of rows. Tokens of different sequences do not merge. Windows of an image
	// are sequences too.
	Offsets []int

	// R is how many tokens of each sequence merge away. More than can be is an error,
	// unless AtMost is set, which takes as many as can be. KTh merges all its sources
	// and takes no number.
	R int
	// Counts is R for each sequence by itself.
	Counts []int
	// Ratio is R as the part of a sequence's tokens, rounded down: at most as many as
	// can be.
	Ratio float64
	// Above, if not nil, merges only pairs that are more similar than that: all of them
	// where R, Counts and Ratio are zero, and else those among the R most similar.
	Above *float32
	// MinTokens is how many tokens are left of a sequence at the least.
	MinTokens int
	// AtMost takes as many as can where R, Counts or Ratio ask for more; otherwise that is an
	// error.
	AtMost bool

	// Protect [tokens] marks tokens that merge into none and none into them.
	Protect []bool
	// Valid [tokens], if not nil, marks those that are not padding. Padding takes no
	// part, like protected tokens, and is left where it is; see Plan.ApplyMask.
	Valid []bool
	// Shift begins the partition of ToMe and Local with the second token: sources are
	// the odd tokens and destinations the even ones after them. In turns from layer to
	// layer, tokens meet new neighbours though their order is preserved.
	Shift bool
	// Sources and Destinations, of Given, are tokens, each at most once; others stay as
	// they are. Among destinations that are equally similar the first one is taken.
	Sources, Destinations []int
	// Margin, of the PiToMe methods, is the similarity at which a pair begins to count
	// for the energy: 0.9 - 0.9 i/L in layer i of L of the published vision models, 0.9
	// - 0.25 i/L of the text models.
	Margin float32
	// Workload, if not nil, is what the tokens that are left go through: where merging
	// would cost more time than it saves, by Matcher.Estimate, nothing merges.
	Workload *Workload
	// Workers is how many goroutines the call may use; 0 stands for the Config's.
	Workers int
}

// checkCall reports what is wrong with a call. It fills r.seqs.
func (r *matchRun) checkCall(ctx context.Context, m *Matcher, c *Call) error {
	if err := check.Call("merge", ctx, c != nil); err != nil {
		return err
	}
	fail := func(format string, args ...any) error { return check.Errorf(ErrCall, "merge: "+format, args...) }
	n := c.Metric.Rows
	if err := check.Matrix(ErrShape, "merge", "the metric", c.Metric, -1, max(c.Metric.Cols, 0), "dims"); err != nil {
		return err
	}
	text := m.cfg.Method == PiToMeText
	switch {
	case c.Plan == nil:
		return fail("Plan is nil")
	case c.Metric.Cols > maxWidth:
		return check.Errorf(ErrShape, "merge: the metric has %d columns, want at most %d", c.Metric.Cols, maxWidth)
	case n > maxTokens:
		return check.Errorf(ErrShape, "merge: %d tokens, want at most %d", n, maxTokens)
	case c.R < 0:
		return fail("R is %d, want 0 or more", c.R)
	case !(c.Ratio >= 0 && c.Ratio <= 1):
		return fail("Ratio is %v, want 0 to 1", c.Ratio)
	case c.R > 0 && c.Ratio > 0 || c.Counts != nil && (c.R > 0 || c.Ratio > 0):
		return fail("more than one of R, Counts and Ratio is given")
	case m.cfg.Method == KTh && (c.R > 0 || c.Ratio > 0 || c.Counts != nil):
		return fail("R, Counts or Ratio together with KTh, which merges all sources")
	case c.Above != nil && math.IsNaN(float64(*c.Above)):
		return fail("Above is NaN")
	case c.Above != nil && (m.cfg.Method == PiToMe || text):
		return fail("Above together with %v, whose sources all merge", m.cfg.Method)
	case c.MinTokens < 0:
		return fail("MinTokens is %d, want 0 or more", c.MinTokens)
	case c.Protect != nil && len(c.Protect) != n:
		return check.Errorf(ErrShape, "merge: Protect has %d elements, want the metric's rows = %d", len(c.Protect), n)
	case c.Valid != nil && len(c.Valid) != n:
		return check.Errorf(ErrShape, "merge: Valid has %d elements, want the metric's rows = %d", len(c.Valid), n)
	case c.Shift && m.cfg.Method > Local:
		return fail("Shift together with %v, want ToMe or Local", m.cfg.Method)
	case c.Shift && (m.cfg.ClassToken || m.cfg.DistillToken) && m.cfg.Order == Published:
		return fail("Shift together with ClassToken in the published order")
	case !(c.Margin-c.Margin == 0) || text && c.Margin >= 1:
		return fail("Margin is %v, want a finite number, less than 1 for PiToMeText", c.Margin)
	}
	if err := check.Workers(ErrCall, "merge", c.Workers); err != nil {
		return err
	}
	if c.Workload != nil {
		if err := c.Workload.checkNumbers(); err != nil {
			return err
		}
	}
	if err := r.sequences(m, c); err != nil {
		return err
	}
	if m.cfg.Method != Given {
		if c.Sources != nil || c.Destinations != nil {
			return fail("Sources or Destinations together with %v, want Given", m.cfg.Method)
		}
		return nil
	}
	return r.checkGiven(c)
}

// sequences lays the sequences out.
func (r *matchRun) sequences(m *Matcher, c *Call) error {
	n := c.Metric.Rows
	r.seqs = r.seqs[:0]
	if c.Offsets == nil {
		r.seqs = append(r.seqs, sequence{from: 0, to: n})
	} else {
		if err := check.Offsets("merge", "Offsets", c.Offsets, n, -1); err != nil {
			return err
		}
		for i, from := range c.Offsets[:len(c.Offsets)-1] {
			r.seqs = append(r.seqs, sequence{from: from, to: c.Offsets[i+1]})
		}
	}
	if c.Counts != nil && len(c.Counts) != len(r.seqs) {
		return check.Errorf(ErrCall, "merge: Counts has %d elements, want one for each sequence = %d", len(c.Counts), len(r.seqs))
	}
	for i, v := range c.Counts {
		if v < 0 {
			return check.Errorf(ErrCall, "merge: Counts[%d] is %d, want 0 or more", i, v)
		}
	}
	if tokens := m.cfg.Height * m.cfg.Width; m.cfg.Method == Grid {
		class := 0
		if m.cfg.ClassToken {
			class = 1
		}
		for _, s := range r.seqs {
			if s.to-s.from != tokens+class {
				return check.Errorf(ErrShape, "merge: a sequence has %d tokens, want those of the grid = %d", s.to-s.from, tokens+class)
			}
		}
	}
	return nil
}

// checkGiven returns an error unless each of Sources and Destinations is a token, once, of
// the only sequence.
func (r *matchRun) checkGiven(c *Call) error {
	n := c.Metric.Rows
	if len(r.seqs) != 1 {
		return check.Errorf(ErrCall, "merge: Offsets together with Given, which is of one sequence")
	}
	r.seen = scratch.Sized(r.seen, n)
	clear(r.seen)
	for _, list := range [...]struct {
		name   string
		tokens []int
	}{{"Sources", c.Sources}, {"Destinations", c.Destinations}} {
		for i, t := range list.tokens {
			if t < 0 || t >= n {
				return check.Errorf(ErrCall, "merge: %s[%d] is %d, want 0 to %d", list.name, i, t, n-1)
			}
			if r.seen[t] {
				return check.Errorf(ErrCall, "merge: %s[%d] is %d, which is there before", list.name, i, t)
			}
			r.seen[t] = true
		}
	}
	return nil
}
