package approx

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state"
)

// StateConfig is what must be known of a state in advance.
type StateConfig struct {
	// Snapshots is how many earlier versions of itself the state keeps: those after each
	// of the last Snapshots calls, to which Truncate can go back. Each takes as much
	// memory as the state, and all together 8 GiB at the most. 0 is none.
	Snapshots int
}

// LinearState is what a causal Linear, Performer or Based remembers of the tokens it has
// seen: S [F, Dv] and z [F] of each key head, where a key has F features, D of a Linear, in
// memory that does not grow. After 4096 tokens these
// are two sums each, of the latest tokens and of all before, with what rounding has left of
// the second, so that they go on growing however many tokens there are; a token then reads
// both, which costs from half as much to as much again. It belongs to every
// causal operator of the same kind, heads, widths and options. It is an attention.Past, and not safe for concurrent use.
type LinearState struct {
	shape       shape
	width       int                    // features of a key
	kind        string                 // the operator's name
	numbers     []int64                // of the operator
	fingerprint state.Fingerprint      // of numbers; 0 of a state that NewState has not made
	values      []float32              // causalSums, one after the other
	n           int                    // tokens seen
	folded      int                    // of them, those whose sums are among those of all
	ring        state.Ring[linearPast] // earlier values
}

// linearPast is an earlier version of a state.
type linearPast struct {
	values []float32
	folded int
}

var _ attention.Past = (*LinearState)(nil)

const (
	maxLen    = min(attention.MaxPosition, math.MaxInt) // tokens that a state may have seen
	maxFloats = min(1<<31, math.MaxInt/8)               // of a state with its snapshots
)

// NewState returns the state before the first token, or an error that matches
// ErrConfig: only a causal Linear has one.
func (l *Linear) NewState(cfg StateConfig) (*LinearState, error) { return l.newState(cfg) }

// newState is the operators' NewState.
func (l *featured) newState(cfg StateConfig) (*LinearState, error) {
	if l.still != "" {
		return nil, check.Errorf(ErrConfig, "approx: no state of %s", l.still)
	}
	size := l.stateSize()
	if most := maxFloats/size - 1; cfg.Snapshots < 0 || cfg.Snapshots > most {
		return nil, check.Errorf(ErrConfig, "approx: Snapshots is %d, want 0 to %d", cfg.Snapshots, most)
	}
	past := func() linearPast { return linearPast{values: make([]float32, size)} }
	return &LinearState{shape: l.sums.shape, width: l.sums.width, kind: l.kind, numbers: l.numbers, fingerprint: l.fingerprint, values: make([]float32, size), ring: state.NewRing(cfg.Snapshots, past)}, nil
}

func (l *featured) stateSize() int { return 3 * l.sums.kvHeads * l.sums.part }

// checkState reports a state that is not one of l's.
func (l *featured) checkState(name string, s *LinearState) error {
	switch {
	case s == nil:
		return check.NilState("approx", name)
	case s.fingerprint == 0:
		return check.Errorf(ErrState, "approx: %s was not made by NewState", name)
	case s.fingerprint == l.fingerprint:
		return nil
	case s.kind != l.kind:
		return check.Errorf(ErrState, "approx: %s is of a %s, want one of a %s", name, s.kind, l.kind)
	case s.shape == l.sums.shape:
		return check.Errorf(ErrState, "approx: %s is of a %s with %s", name, l.kind, l.unlike)
	}
	return check.Errorf(ErrState, "approx: %s is of %d key heads of %d x %d among %d, want %d of %d x %d among %d", name,
		s.shape.kvHeads, s.shape.dim, s.shape.valueDim, s.shape.heads, l.sums.kvHeads, l.sums.dim, l.sums.valueDim, l.sums.heads)
}

// advance counts n more tokens, of which the values are those of.
func (s *LinearState) advance(n int) {
	if n == 0 {
		return
	}
	s.n += n
	if old := s.ring.Next(s.n); old != nil {
		copy(old.values, s.values)
		old.folded = s.folded
	}
}

// Len returns how many tokens the state has seen.
func (s *LinearState) Len() int { return s.n }

// Bytes returns the memory that the state holds, with its snapshots.
func (s *LinearState) Bytes() int64 { return 4 * int64(len(s.values)) * int64(1+s.ring.Len()) }

// Sums returns S [F, Dv] and z [F] of a key head, nothing where there is no such head: up to
// 4096 tokens the state's own memory, valid until its next Step, later a copy.
func (s *LinearState) Sums(head int) (sum blas32.General, z []float32) {
	if head < 0 || head >= s.shape.kvHeads {
		return blas32.General{}, nil
	}
	all := len(s.values) / 3
	part := all / s.shape.kvHeads
	own := s.values[head*part:][:part]
	if s.folded > 0 {
		copied := make([]float32, part)
		for i, v := range own {
			copied[i] = float32(float64(v) + float64(s.values[all+head*part+i]) + float64(s.values[2*all+head*part+i]))
		}
		own = copied
	}
	return mat.Of(own, s.width, s.shape.valueDim), own[s.width*s.shape.valueDim:]
}

// Reset goes back to before the first token and keeps the memory.
func (s *LinearState) Reset() {
	clear(s.values)
	s.n, s.folded = 0, 0
	s.ring.Forget(-1)
}

// Clone returns a copy that shares nothing with s.
func (s *LinearState) Clone() *LinearState {
	c := *s
	c.values = slices.Clone(s.values)
	c.ring = s.ring.Clone(func(p linearPast) linearPast { return linearPast{slices.Clone(p.values), p.folded} })
	return &c
}

// Truncate goes back to the first n tokens, of which the state must have a
// snapshot (StateConfig.Snapshots) unless n is 0 or Len: what has been added to
// sums cannot be taken out of them. It returns an error that matches ErrState, and
// changes nothing, where there is none.
func (s *LinearState) Truncate(n int) error {
	switch {
	case n == s.n:
		return nil
	case n == 0:
		s.Reset()
		return nil
	}
	old := s.ring.Back(n)
	if old == nil {
		return check.Errorf(ErrState, "approx: no snapshot after %d tokens in a state of %d; it keeps those after its last %d calls", n, s.n, s.ring.Len())
	}
	copy(s.values, old.values)
	s.n, s.folded = n, old.folded
	return nil
}
