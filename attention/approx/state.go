package approx

import (
	"context"
	"io"
	"math"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state"
)

// StateConfig is what must be known of a state in advance.
type StateConfig struct {
	// Snapshots is how many earlier versions of itself the state keeps: those behind
	// each of the last Snapshots calls, to which Truncate can go back. Each takes as
	// much memory as the state.
	Snapshots int
}

// LinearState is what a causal Linear remembers of the tokens it has seen: S
// [D, Dv] and z [D] of each key head, in memory that does not grow. It is not safe
// for concurrent use.
type LinearState struct {
	op     *Linear
	values []float32
	n      int

	ring []snapshot
	next int // the element of ring that is overwritten next
}

type snapshot struct {
	values []float32
	n      int // -1 for none
}

// NewState returns the state before the first token, or an error that matches
// ErrConfig: only a causal Linear has one.
func (l *Linear) NewState(cfg StateConfig) (*LinearState, error) {
	const most = 1 << 20
	switch {
	case !l.cfg.Causal:
		return nil, check.Errorf(ErrConfig, "approx: a Linear that is not Causal has no state: its queries see the tokens to come")
	case cfg.Snapshots < 0 || cfg.Snapshots > most:
		return nil, check.Errorf(ErrConfig, "approx: Snapshots is %d, want 0 to %d", cfg.Snapshots, most)
	}
	s := &LinearState{op: l, values: make([]float32, l.stateSize()), ring: make([]snapshot, cfg.Snapshots)}
	for i := range s.ring {
		s.ring[i] = snapshot{make([]float32, l.stateSize()), -1}
	}
	return s, nil
}

func (l *Linear) stateSize() int { return l.sums.kvHeads * l.sums.part }

// Step is Forward for the next tokens, one or many, after those that the state
// has seen. Any split of a sequence gives what Forward gives, up to rounding. On
// an error the state is as before the call.
func (l *Linear) Step(dst, q, k, v blas32.General, state *LinearState) error {
	if state == nil {
		return check.Errorf(ErrCall, "approx: state is nil, want one of NewState")
	}
	return l.Run(context.Background(), &Call{Dst: dst, Q: q, K: k, V: v, State: state})
}

// of wants a state of l for a call of so many sequences.
func (s *LinearState) of(l *Linear, sequences int) error {
	switch {
	case s.op == nil:
		return check.Errorf(ErrState, "approx: state was not made by NewState")
	case s.op.sums.shape != l.sums.shape:
		return check.Errorf(ErrState, "approx: state is of %d key heads of %d x %d among %d, want %d of %d x %d among %d",
			s.op.sums.kvHeads, s.op.sums.dim, s.op.sums.valueDim, s.op.sums.heads, l.sums.kvHeads, l.sums.dim, l.sums.valueDim, l.sums.heads)
	case sequences != 1:
		return check.Errorf(ErrCall, "approx: State with %d sequences, want 1", sequences)
	}
	return nil
}

// advance takes up values behind n more tokens.
func (s *LinearState) advance(values []float32, n int) {
	if n == 0 {
		return
	}
	copy(s.values, values)
	s.n += n
	if len(s.ring) > 0 {
		copy(s.ring[s.next].values, values)
		s.ring[s.next].n = s.n
		s.next = (s.next + 1) % len(s.ring)
	}
}

// Len returns how many tokens the state has seen.
func (s *LinearState) Len() int { return s.n }

// Bytes returns the memory that the state holds, with its snapshots.
func (s *LinearState) Bytes() int64 { return 4 * int64(len(s.values)) * int64(1+len(s.ring)) }

// Sums returns S [D, Dv] and z [D] of a key head: the state's own memory, valid
// until its next Step.
func (s *LinearState) Sums(head int) (sum blas32.General, z []float32) {
	h := &s.op.sums
	own := s.values[head*h.part:][:h.part]
	return mat.Of(own, h.dim, h.valueDim), own[h.dim*h.valueDim:]
}

// Reset goes back to before the first token and keeps the memory.
func (s *LinearState) Reset() {
	clear(s.values)
	s.n, s.next = 0, 0
	for i := range s.ring {
		s.ring[i].n = -1
	}
}

// Clone returns a copy that shares nothing with s.
func (s *LinearState) Clone() *LinearState {
	c := *s
	c.values = slices.Clone(s.values)
	c.ring = slices.Clone(s.ring)
	for i := range c.ring {
		c.ring[i].values = slices.Clone(c.ring[i].values)
	}
	return &c
}

// Truncate goes back to the first n tokens, of which the state must have a
// snapshot (StateConfig.Snapshots) unless n is 0 or Len: what has been added to
// sums cannot be taken out of them. It returns an error that matches ErrCall, and
// changes nothing, where there is none.
func (s *LinearState) Truncate(n int) error {
	switch {
	case n == s.n:
		return nil
	case n == 0:
		s.Reset()
		return nil
	}
	found := slices.IndexFunc(s.ring, func(old snapshot) bool { return old.n == n && n > 0 })
	if found < 0 {
		return check.Errorf(ErrCall, "approx: no snapshot behind %d tokens in a state of %d; it keeps those behind its last %d calls", n, s.n, len(s.ring))
	}
	copy(s.values, s.ring[found].values)
	s.n = n
	for i := range s.ring {
		if s.ring[i].n > n {
			s.ring[i].n = -1
		}
	}
	s.next = (found + 1) % len(s.ring)
	return nil
}

const stateKind = "sqLinear"

func (l *Linear) fingerprint() []int64 {
	s := &l.sums
	return []int64{int64(s.heads), int64(s.kvHeads), int64(s.dim), int64(s.valueDim)}
}

// WriteTo stores the state, without its snapshots. It implements io.WriterTo.
func (s *LinearState) WriteTo(w io.Writer) (int64, error) {
	f := state.NewWriter(w, stateKind, s.op.fingerprint())
	f.Ints(int64(s.n))
	f.Floats(s.values)
	return f.End()
}

// ReadState reads a state that WriteTo wrote of this Linear, or of one with the
// same heads. Errors match ErrState or are those of r.
func (l *Linear) ReadState(r io.Reader) (*LinearState, error) {
	s, err := l.NewState(StateConfig{})
	if err != nil {
		return nil, err
	}
	f := state.NewReader(r, "approx", ErrState, stateKind, l.fingerprint())
	n := f.Int()
	if n < 0 || n > math.MaxInt {
		f.Fail("it is behind %d tokens", n)
	}
	s.n, s.values = int(n), f.Floats(int64(len(s.values)))
	if err := f.End(); err != nil {
		return nil, err
	}
	return s, nil
}
