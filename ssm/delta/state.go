package delta

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/state"
	"github.com/subquad/subquad/ssm"
)

// StateConfig is what must be known of a state in advance.
type StateConfig struct {
	// Snapshots is how many earlier versions of itself the state keeps: those after
	// each of the last Snapshots calls, to which Truncate can go back. Each takes as
	// much memory as the state. 0 is none.
	Snapshots int
}

// State is what a recurrence or a block remembers of the tokens it has seen, in memory
// that does not grow: a matrix for each head and, of a block, the inputs that its
// convolutions or its token shift look back at. It is made by NewState, for that operator
// and all with the same fingerprint (Config and weights). Two calls must not use it at
// once.
type State struct {
	kind   *kind
	values []float32 // laid out as the operator says, kind.size of them
	n      int       // tokens seen, at most maxTokens
	given  bool      // values were written from outside: after 0 tokens they may not be 0
	ring   state.Ring[[]float32]
}

// kind is what an operator's states have in common, and tells those of different
// operators apart.
type kind struct {
	name string // the operator and its shape, for errors
	size int    // float32 of State.values
	hash uint64 // fingerprint of Config and weights
	work int64  // multiply-adds of a token, roughly
}

const (
	// maxTokens bounds how many tokens a state can have seen, so that sums of positions
	// and lengths do not overflow.
	maxTokens = min(1<<60, math.MaxInt-1<<16)
	// maxSize bounds every number of a Config.
	maxSize = 1 << 24
	// maxFloats bounds the elements of a state.
	maxFloats = math.MaxInt32 / 4
	// maxSnapshots bounds StateConfig.Snapshots, and maxStateFloats the elements of a
	// state with its snapshots.
	maxSnapshots, maxStateFloats = 1 << 20, min(1<<33, math.MaxInt/8)
)

func (k *kind) newState(cfg StateConfig) (*State, error) {
	if cfg.Snapshots < 0 || cfg.Snapshots > maxSnapshots {
		return nil, check.Errorf(ErrConfig, "delta: Snapshots is %d, want 0 to %d", cfg.Snapshots, maxSnapshots)
	}
	if check.Product(maxStateFloats, 1+cfg.Snapshots, k.size) < 0 {
		return nil, check.Errorf(ErrConfig, "delta: Snapshots is %d, too many for a state of %d bytes", cfg.Snapshots, 4*k.size)
	}
	values := func() []float32 { return kernel.Large[float32](k.size) }
	return &State{kind: k, values: values(), ring: state.NewRing(cfg.Snapshots, values)}, nil
}

// accept returns an error unless st is a state of k.
func (k *kind) accept(name string, st *State) error {
	switch {
	case st == nil:
		return check.NilState("delta", name)
	case st.kind == nil:
		return check.Errorf(ErrState, "delta: %s was not made by NewState", name)
	case st.kind.name != k.name:
		return check.Errorf(ErrState, "delta: %s is of a %s, want a %s", name, st.kind.name, k.name)
	case st.kind.hash != k.hash:
		return check.Errorf(ErrState, "delta: %s is of another %s, with another Config or other weights", name, k.name)
	}
	return nil
}

// acceptRead returns an error unless st is a state of k and m, of the argument name, a
// matrix [rows, cols] for what is read of it or written to it.
func (k *kind) acceptRead(st *State, name string, m blas32.General, rows, cols int, what string) error {
	if err := k.accept("State", st); err != nil {
		return err
	}
	return check.Matrix(ErrShape, "delta", name, m, rows, cols, what)
}

// Len returns how many tokens the state has seen.
func (st *State) Len() int { return st.n }

// Bytes returns the memory of the state, with its snapshots.
func (st *State) Bytes() int64 { return 4 * int64(len(st.values)) * int64(1+st.ring.Len()) }

// Reset makes the state what NewState made it.
func (st *State) Reset() {
	clear(st.values)
	st.n, st.given = 0, false
	st.ring.Forget(-1)
}

// written notes that values were given from outside, in place of those after n tokens.
func (st *State) written() {
	st.given = true
	snapshot := st.ring.Back(st.n)
	if snapshot == nil {
		snapshot = st.ring.Next(st.n)
	}
	if snapshot != nil {
		copy(*snapshot, st.values)
	}
}

// Clone returns a copy, snapshots included: a prefix that several continuations share.
func (st *State) Clone() *State {
	c := *st
	c.values = largeCopy(st.values)
	c.ring = st.ring.Clone(slices.Clone[[]float32])
	return &c
}

// largeCopy returns a copy that stands in large pages, as NewState's values do: a decoded
// token reads and writes them once, and finding many small pages would take a part of that.
func largeCopy(x []float32) []float32 {
	c := kernel.Large[float32](len(x))
	copy(c, x)
	return c
}

// CopyFrom makes the state what another of the same operator is, without its snapshots;
// those of st are forgotten. It allocates nothing. Errors match ErrState.
func (st *State) CopyFrom(from *State) error {
	if st.kind == nil {
		return check.Errorf(ErrState, "delta: the state was not made by NewState")
	}
	if err := st.kind.accept("from", from); err != nil || from == st {
		return err
	}
	copy(st.values, from.values)
	st.n, st.given = from.n, from.given
	st.ring.Forget(-1)
	return nil
}

// Truncate goes back to the first n tokens, of which the state must have a snapshot
// (StateConfig.Snapshots) unless n is Len, or 0 in a state that was never written to
// (Recurrence.Write, which makes a snapshot as a call does). It returns an error that matches
// ErrState, and changes nothing, where there is none.
func (st *State) Truncate(n int) error {
	switch {
	case n == st.n:
		return nil
	case n == 0 && !st.given:
		st.Reset()
		return nil
	}
	snapshot := st.ring.Back(n)
	if snapshot == nil {
		return check.Errorf(ErrState, "delta: no snapshot after %d tokens in a state of %d; it keeps those after its last %d calls", n, st.n, st.ring.Len())
	}
	copy(st.values, *snapshot)
	st.n = n
	return nil
}

// room returns an error unless the state can count n more tokens.
func (st *State) room(n int) error {
	if n > maxTokens-st.n {
		return check.Errorf(ErrFull, "delta: %d tokens after %d are more than a state can count, %d", n, st.n, maxTokens)
	}
	return nil
}

// advance notes that values are those after n more tokens.
func (st *State) advance(n int) {
	if n == 0 {
		return
	}
	st.n += n
	if snapshot := st.ring.Next(st.n); snapshot != nil {
		copy(*snapshot, st.values)
	}
}

// Chunk is a grid of absolute positions at which sequences are cut, and tiny values of a
// state are set to 0: calls that are split there give the bits of the whole. It is that of
// package ssm.
const Chunk = ssm.Chunk
