package merge

import (
	"math"
	"time"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// Workload is what runs on the tokens that are left: what merging saves. Call.Workload
// refuses to merge where it would not pay.
type Workload struct {
	// Dim is the width of the tokens that are merged.
	Dim int
	// Layers is how many layers run before tokens are restored, or until the end; the
	// numbers below are those of one layer.
	Layers int
	// PairFlop are for each pair of a query and a key: 4 Dim for exact attention, half
	// of it where it is causal, 0 where the attention is linear. TokenFlop are for each
	// token: 8 Dim² for the projections and 4 Dim Inner for an MLP.
	PairFlop, TokenFlop float64
	// Unmerge says that tokens are restored.
	Unmerge bool
}

// checkNumbers reports what is wrong with a workload.
func (w *Workload) checkNumbers() error {
	if w.Dim < 0 || w.Layers < 0 || !(w.PairFlop >= 0 && w.TokenFlop >= 0 && w.PairFlop+w.TokenFlop <= math.MaxFloat64) {
		return check.Errorf(ErrCall, "merge: Workload is %+v, want finite numbers, 0 or more", *w)
	}
	return nil
}

// Estimate is what a merge costs, Cost, and what it saves, Saving, in time of one goroutine.
type Estimate struct{ Cost, Saving time.Duration }

// Pays tells whether the saving is greater than the cost.
func (e Estimate) Pays() bool { return e.Saving > e.Cost }

// Estimate predicts the cost and the saving of merging r tokens of a sequence away, by a
// metric of metricDim columns. The speeds behind it were measured on the machine of the
// README's table, in each tier (NEON's are taken to be AVX2's by a quarter, unmeasured);
// elsewhere both sides change alike. It says nothing of what merging costs in accuracy. Errors
// match ErrCall.
func (m *Matcher) Estimate(tokens, metricDim, r int, w Workload) (Estimate, error) {
	if tokens < 0 || tokens > maxTokens || metricDim < 0 || r < 0 || r > tokens {
		return Estimate{}, check.Errorf(ErrCall, "merge: an estimate for %d tokens, a metric of %d and r = %d, want 0 or more, and r at most the tokens", tokens, metricDim, r)
	}
	if err := w.checkNumbers(); err != nil {
		return Estimate{}, err
	}
	cost, saving := m.predict(tokens, metricDim, r, &w)
	return Estimate{nanoseconds(cost), nanoseconds(saving)}, nil
}

func nanoseconds(x float64) time.Duration {
	return time.Duration(min(x, float64(math.MaxInt64/2)))
}

// speed is how fast a tier is.
type speed struct {
	flop    float64 // a nanosecond, of matching, attention and layers alike
	element float64 // nanoseconds for an element that is merged or restored
	pair    float64 // for the exponential of a pair's energy
	token   float64 // for what a plan does for a token, beside its elements
}

func speeds() speed {
	switch isa.Active() {
	case isa.AVX512, isa.AVX2:
		return speed{flop: 90, element: 0.6, pair: 2.5, token: 100}
	case isa.NEON:
		return speed{flop: 22, element: 1.2, pair: 5, token: 200}
	}
	return speed{flop: 2, element: 1.5, pair: 12, token: 150}
}

// predict is Estimate in nanoseconds.
func (m *Matcher) predict(tokens, metricDim, r int, w *Workload) (cost, saving float64) {
	n, d, v := float64(tokens), float64(metricDim), speeds()
	pairs, energies := n*n/4, 0.0
	share := func(cell float64) float64 { return n * n / cell * (1 - 1/cell) }
	switch m.cfg.Method {
	case Local:
		pairs = n / 2 * min(2*float64(m.cfg.Window)-1, n/2)
	case KTh:
		pairs = share(float64(m.cfg.Every))
	case Grid:
		pairs = share(float64(m.cfg.CellHeight) * float64(m.cfg.CellWidth))
	case PiToMe, PiToMeText:
		pairs, energies = float64(r)*float64(r), n*n
	case PiToMeBSM:
		energies = n * n
	}
	passes := 1.0
	if w.Unmerge {
		passes = 2
	}
	left := n - float64(r)
	cost = 2*(pairs+energies)*d/v.flop + energies*v.pair + n*(d+passes*float64(w.Dim))*v.element + n*v.token
	saving = float64(w.Layers) * ((n*n-left*left)*w.PairFlop + float64(r)*w.TokenFlop) / v.flop
	return cost, saving
}

// declines tells whether a call has a workload for which merging would not pay. Without a
// number of tokens, but with Above, as many as can be are supposed to merge.
func (r *matchRun) declines() bool {
	c := &r.call
	if c.Workload == nil {
		return false
	}
	var cost, saving float64
	for i := range r.seqs {
		n := r.seqs[i].to - r.seqs[i].from
		want := c.R
		switch {
		case c.Counts != nil:
			want = c.Counts[i]
		case c.Ratio > 0:
			want = int(c.Ratio * float64(n))
		case r.m.cfg.Method == KTh:
			want = n - n/r.m.cfg.Every
		case c.Above != nil && c.R == 0:
			want = n / 2
		}
		most := n
		if r.m.cfg.Method != KTh && r.m.cfg.Method != Grid && r.m.cfg.Method != Given {
			most = (n + 1) / 2
		}
		want = max(0, min(want, most, n-c.MinTokens))
		a, b := r.m.predict(n, c.Metric.Cols, want, c.Workload)
		cost, saving = cost+a, saving+b
	}
	return saving <= cost
}

// decline makes the plan that leaves everything as it is.
func (r *matchRun) decline() {
	r.offsets, r.target, r.order = append(r.offsets[:0], 0), scratch.Sized(r.target, r.call.Metric.Rows), scratch.Sized(r.order, r.call.Metric.Rows)
	for t := range r.target {
		r.target[t], r.order[t] = int32(t), int32(t)
	}
	for _, s := range r.seqs {
		r.offsets = append(r.offsets, s.to)
	}
	r.call.Plan.build(r.target, r.order, r.offsets)
}

// Bytes returns 0: the operator has neither weights nor tables. Plans and working memory
// count for themselves.
func (m *Matcher) Bytes() int64 { return 0 }

// ScratchBytes returns the working memory that a call takes, at the most, besides its
// arguments and the plan: it grows with tokens times the metric's width,
// never with tokens squared.
func (m *Matcher) ScratchBytes(tokens, metricDim int) int64 {
	w, rows := int64(m.tile.Panel()), int64(searchTiles*m.tile.Rows())
	n, d := int64(tokens), int64(metricDim)
	packed := (n + w) * d
	if !m.cfg.Method.energetic() && m.cfg.Method != Given && m.cfg.Method != Grid {
		packed = (n/2 + w) * d
	}
	workers := int64(parallel.Workers(m.cfg.Workers))
	worker := max(rows, packPanels*w)*d + rows*(512+w) + 2*rows*w + 512
	return 4*(packed+workers*worker) + 64*n + 4096
}
