package merge

import (
	"math"
	"slices"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
)

// StateConfig is what must be known of a state in advance: nothing.
type StateConfig struct{}

// State is what a Stream remembers: the first token of a pair while it waits for the
// second. It belongs to every Stream of the same Config, and must not be used by two calls
// at once.
type State struct {
	cfg         StreamConfig
	fingerprint state.Fingerprint // of cfg; 0 of a state that NewState has not made
	n           int64             // tokens seen
	waiting     bool
	x, metric   []float32 // [Dim] and [MetricDim] of the token that waits
	size        float32   // its size
}

// maxLen bounds how many tokens a state has seen, so that sums of them fit in an int.
const maxLen = min(1<<60, math.MaxInt)

// NewState returns an empty state. Its error is nil.
func (op *Stream) NewState(StateConfig) (*State, error) {
	st := new(State)
	st.fit(op)
	return st, nil
}

// fit makes a state an empty one of op, in its memory.
func (st *State) fit(op *Stream) {
	st.cfg, st.fingerprint = op.cfg, op.fingerprint
	st.x, st.metric = scratch.Floats(st.x, op.cfg.Dim), scratch.Floats(st.metric, op.cfg.MetricDim)
	st.Reset()
}

func (op *Stream) checkState(st *State) error {
	switch {
	case st == nil:
		return check.NilState("merge", "State")
	case st.fingerprint == 0:
		return check.Errorf(ErrState, "merge: the state was not made by NewState")
	case st.fingerprint != op.fingerprint:
		return check.Errorf(ErrState, "merge: the state is of a Stream %+v, want %+v", st.cfg, op.cfg)
	}
	return nil
}

// Len returns how many tokens the state has seen.
func (st *State) Len() int { return int(st.n) }

// Waiting returns 1 while a token waits for the second of its pair, and else 0.
func (st *State) Waiting() int { return int(state.Bool(st.waiting)) }

// Bytes returns the memory of the state.
func (st *State) Bytes() int64 { return 4 * int64(len(st.x)+len(st.metric)) }

// Reset makes the state what NewState made it.
func (st *State) Reset() {
	st.n, st.waiting, st.size = 0, false, 0
	clear(st.x)
	clear(st.metric)
}

// Truncate goes back to the first n tokens: to all, to none, or to those before one that
// waits, for a pair that has come out cannot be taken back. It returns an error that
// matches ErrState, and changes nothing, otherwise.
func (st *State) Truncate(n int) error {
	switch at := int64(n); {
	case at == st.n:
	case at == 0:
		st.Reset()
	case at == st.n-1 && st.waiting:
		st.n, st.waiting = at, false
	default:
		return check.Errorf(ErrState, "merge: a state of %d tokens, of which %d waits, truncated to %d, want one less at most, of those that wait, or 0", st.n, st.Waiting(), n)
	}
	return nil
}

// Clone returns a copy.
func (st *State) Clone() *State {
	c := *st
	c.x, c.metric = slices.Clone(st.x), slices.Clone(st.metric)
	return &c
}
