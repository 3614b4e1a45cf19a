package attention

import (
	"fmt"
	"math"
	"sort"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/rope"
)

// takeStates keeps the states of an Extra and returns their number, which is 0 or
// that of the sequences.
func (s *source) takeStates(e *Extra, sequences int) (int, error) {
	s.clear()
	switch {
	case e.State != nil && e.States != nil:
		return 0, check.Errorf(ErrCall, "attention: Extra.State together with Extra.States")
	case e.State != nil:
		s.single[0] = e.State
		s.states = s.single[:]
	case e.States != nil:
		s.states = e.States
	default:
		return 0, nil
	}
	switch {
	case len(e.K) > 0 || len(e.V) > 0 || e.Offsets != nil:
		return 0, check.Errorf(ErrCall, "attention: Extra.K, V or Offsets together with a state")
	case len(s.states) != sequences || sequences == 0:
		return 0, check.Errorf(ErrCall, "attention: Extra has %d states, want one for each sequence = %d", len(s.states), sequences)
	}
	for i, x := range s.states {
		if x == nil {
			return 0, check.NilState("attention", fmt.Sprintf("Extra.States[%d]", i))
		}
	}
	return len(s.states), nil
}

// setStates checks the states and finds what they hold.
func (s *source) setStates(r *forwardRun, heads int, weights blas32.General) error {
	cfg := &r.op.cfg
	s.offsets = append(s.offsets, 0)
	for i, x := range s.states {
		c := &x.op.cfg
		switch {
		case c.KVHeads != heads || c.HeadDim != cfg.HeadDim || c.ValueDim != cfg.ValueDim:
			return check.Errorf(ErrState, "attention: Extra.States[%d] has %d heads of %d and %d, want %d of %d and %d", i, c.KVHeads, c.HeadDim, c.ValueDim, heads, cfg.HeadDim, cfg.ValueDim)
		case x.schedule != nil && x.cfg.Policy == rope.EachStep:
			return check.Errorf(ErrState, "attention: Extra.States[%d] has a Rotation whose Policy is EachStep", i)
		}
		s.spans = x.spans(s.spans, 0, x.n)
		for n := s.offsets[i]; len(s.starts) < len(s.spans); {
			s.starts = append(s.starts, n)
			n += s.spans[len(s.starts)-1].n
			s.rows = n
		}
		s.offsets = append(s.offsets, s.rows)
	}
	s.heads, s.weights = heads, weights
	return s.checkWeights(&extraNames, heads, weights)
}

// weighted tells whether any log-weights are added to the logits.
func (s *source) weighted() bool {
	if s.weights.Rows > 0 {
		return true
	}
	for _, x := range s.states {
		if x.cfg.LogWeights {
			return true
		}
	}
	return false
}

// eachSpan calls f for the pieces of rows from ... to of a source of states: row is
// the first, which stands with the next n-1 from row first of b on.
func (s *source) eachSpan(from, to int, f func(row int, b *block, first, n int)) {
	if len(s.spans) == 0 {
		return
	}
	i := sort.SearchInts(s.starts, from+1) - 1
	for row := from; row < to; i++ {
		x := &s.spans[i]
		at := row - s.starts[i]
		n := min(x.n-at, to-row)
		f(row, x.b, x.row+at, n)
		row += n
	}
}

// seen returns the rows of sequence b, counted from its first, whose positions lie in
// a range.
func (s *source) seen(b int, from, to int64) (first, last int) {
	lo, hi := s.sequence(b)
	count := func(position int64) int { // of the sequence's rows before it
		position = min(max(position, 0), math.MaxInt/2)
		i := sort.SearchInts(s.starts, lo)
		end := sort.SearchInts(s.starts, hi)
		n := i + sort.Search(end-i, func(j int) bool { return int64(s.spans[i+j].end()) > position })
		if n == end {
			return hi - lo
		}
		return s.starts[n] - lo + s.spans[n].before(position)
	}
	first, last = count(from), count(to)
	return first, max(first, last)
}

// float32Rows returns n rows of a head as float32: where they stand or, of another format,
// in wide.
func (b *block) float32Rows(wide *[]float32, head, row, n, dim, valueDim int) (k, v blas32.General) {
	if b.k.format == asm.Float32 {
		of := func(s *store, cols int) blas32.General {
			return blas32.General{Rows: n, Cols: cols, Stride: s.stride, Data: s.float32[row*s.stride+head*s.dim:]}
		}
		return of(&b.k, dim), of(b.valueStore(), valueDim)
	}
	*wide = scratch.Floats(*wide, n*(dim+valueDim))
	k, v = mat.Of(*wide, n, dim), mat.Of((*wide)[n*dim:], n, valueDim)
	b.k.widen(k, head, row)
	b.valueStore().widen(v, head, row)
	return k, v
}
