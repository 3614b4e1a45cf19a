package kvcache

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
	"github.com/subquad/subquad/internal/topk"
)

// Selector is a policy that says what to look at: All, Window, Top, TokenSelect, Quest,
// InfLLM, RetroInfer, Landmarks, or one of these Cached, or Shadow. Its value is its configuration.
type Selector interface {
	check(cfg *Config) error
	newIndex(a *Attention) index
}

// Run is the rows From to To, the last not included.
type Run = attention.Run

// Choice is what a chunk of queries reads of the middle of a state, between the first
// Keep and the last Recent tokens.
type Choice struct {
	// All reads everything.
	All bool
	// Lists are the rows, ascending: one list for all heads, or one for each key head,
	// or for each query head.
	Lists [][]Run
	// Estimates are clusters that are read as one token each, one set for each list; nil
	// for none.
	Estimates []Estimate
}

// Estimate is clusters of tokens that are read as one token each: their keys are
// centroids, their values means, and a cluster of n tokens weighs as much as n, by its
// log-weight log n.
type Estimate struct {
	K, V       blas32.General
	LogWeights []float32
}

// index is what a selector knows of the tokens of one state.
type index interface {
	// append takes up the rows of a chunk, which the heads hold already.
	append(r *run) error
	// choose sets r.choice; reads is how many parallel parts of scan it wants first.
	choose(r *run) error
	// observes tells whether observe is to be called, with the weights.
	observes() bool
	observe(r *run)
	// keep says that a head has forgotten rows.
	keep(s *State, head int)
	// truncate goes back to n tokens, or only tells whether it could.
	truncate(s *State, n int, try bool) bool
	clone() index
	bytes() int64
	save(w *state.Writer)
	load(r *state.Reader, s *State)
}

// still is an index that knows nothing.
type still struct{}

func (still) append(*run) error               { return nil }
func (still) observes() bool                  { return false }
func (still) observe(*run)                    {}
func (still) keep(*State, int)                {}
func (still) truncate(*State, int, bool) bool { return true }
func (still) bytes() int64                    { return 0 }
func (still) save(*state.Writer)              {}
func (still) load(*state.Reader, *State)      {}

// All looks at everything that is held. With Positions Far or Grouped, what is not recent
// is far.
type All struct{}

type allIndex struct{ still }

func (All) check(*Config) error       { return nil }
func (All) newIndex(*Attention) index { return allIndex{} }
func (allIndex) clone() index         { return allIndex{} }
func (allIndex) choose(r *run) error  { r.choice.All = true; return nil }

// Window looks at nothing but the first Keep tokens and a query's own last Recent, by its
// own position, so that nothing depends on chunks. All stay held, but with StreamingLLM.
type Window struct{}

type windowIndex struct{ still }

func (Window) check(*Config) error       { return nil }
func (Window) newIndex(*Attention) index { return windowIndex{} }
func (windowIndex) clone() index         { return windowIndex{} }

func (windowIndex) choose(r *run) error {
	r.choose1(1)
	switch cfg := &r.op.cfg; {
	case cfg.Positions.far():
	case cfg.Positions == InCache && r.op.rotation != nil:
		r.tail, r.numbered = r.state.n, true
	default:
		r.tail, r.window = max(0, r.first-cfg.Recent+1), true
	}
	return nil
}

// choose1 empties the choice and gives it n lists.
func (r *run) choose1(n int) {
	r.choice.All, r.choice.Estimates = false, r.choice.Estimates[:0]
	for len(r.choice.Lists) < n {
		r.choice.Lists = append(r.choice.Lists, nil)
	}
	r.choice.Lists = r.choice.Lists[:n]
	for i := range r.choice.Lists {
		r.choice.Lists[i] = r.choice.Lists[i][:0]
	}
}

// addRows appends rows, ascending, to a list as runs.
func addRows(list []Run, rows []int32, offset int) []Run {
	for _, x := range rows {
		row := int(x) + offset
		if n := len(list); n > 0 && list[n-1].To == row {
			list[n-1].To++
		} else {
			list = append(list, Run{From: row, To: row + 1})
		}
	}
	return list
}

// middle returns the rows of a key head that a selector may choose from: those after the
// first Keep tokens and before the last Recent ones, or before the chunk's own where
// these are more.
func (r *run) middle(head int) (from, to int) {
	s, cfg := r.state, &r.op.cfg
	held := s.heads[head].Held()
	from = s.rowsBefore(head, cfg.Keep)
	to = max(from, min(s.rowsBefore(head, r.first), s.rowsBefore(head, s.n-cfg.Recent)))
	return from, min(to, held)
}

// apart tells whether queries meet near and far tokens at angles of their own: by the
// Positions, or because a Window's first tokens have numbers that its last ones have not.
func (r *run) apart() bool { return r.op.cfg.Positions.far() || r.numbered }

// choose asks the selector.
func (r *run) choose(s *State) error {
	r.choice.All, r.window, r.numbered, r.teller = true, false, false, nil
	r.choice.Estimates = r.choice.Estimates[:0]
	r.tail = max(0, min(r.first, s.n-r.op.cfg.Recent))
	if r.op.cfg.Positions.far() {
		r.tail = s.n // what a query sees near goes by its own distance
	}
	if s.index == nil || s.n <= r.op.cfg.Dense {
		return nil
	}
	before := r.report.Reused
	if err := s.index.choose(r); err != nil {
		return err
	}
	if !r.choice.All && r.report.Reused == before {
		r.report.Refreshed++
	}
	if _, own := s.index.(reader); !own && !r.choice.All {
		if r.teller = r.telling(s); r.teller == nil { // nothing tells what the rest weighs
			r.report.Seen, r.report.Missing = math.NaN(), 1
		}
		r.report.Error = math.Inf(1)
	}
	return nil
}

// selecting is working memory of selectors.
type selecting struct {
	bar      []float32   // [Heads*HeadDim], the mean query
	query    []float32   // that keys are scored with
	from, to int         // the rows that are
	pages    *questIndex // whose bounds are scored in place of keys, or nil
	log      []float32   // [Heads][rows], their scores
	votes    []float32   // [rows]
	peaks    bool        // votes are those of the best head alone
	pooled   []float32   // [rows]
	group    []float32   // [rows], of a key head
	sums     []float32   // [Heads]
	best     topk.Stream
	ids      []int32   // of tokens that may be among the best
	turned   []float32 // queries
	dividing dividing
}

// queryAt sets dst [queries, Heads*HeadDim] to the queries as they came, turned to the
// positions from at on, or all to at.
func (r *run) queryAt(at int, same bool) (blas32.General, error) {
	x := r.qRaw
	r.sel.turned = scratch.Floats(r.sel.turned, x.Rows*x.Cols)
	y := mat.Of(r.sel.turned, x.Rows, x.Cols)
	mat.Copy(y, x)
	if r.op.rotation == nil {
		return y, nil
	}
	if !same {
		return y, r.op.rotation.Rotate(y, int64(at))
	}
	for i := range y.Rows {
		if err := r.op.rotation.Rotate(mat.Rows(y, i, i+1), int64(at)); err != nil {
			return y, err
		}
	}
	return y, nil
}

// meanQuery returns the mean of some rows of queries.
func (r *run) meanQuery(q blas32.General) []float32 {
	r.sel.bar = scratch.Floats(r.sel.bar, q.Cols)
	bar := r.sel.bar[:q.Cols]
	clear(bar)
	for i := range q.Rows {
		for j, x := range mat.Row(q, i) {
			bar[j] += x
		}
	}
	if q.Rows > 1 {
		f := 1 / float32(q.Rows)
		for j := range bar {
			bar[j] *= f
		}
	}
	return bar
}

// grown is scratch.Floats for lists that are longer with every token: it allocates now and
// then, and not each time.
func grown(old []float32, n int) []float32 {
	if cap(old) < n {
		return scratch.Floats(nil, n+n/4+64)[:n]
	}
	return old[:n]
}
