package delta

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

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
type State struct{ fixed state.Fixed }

// kind is what an operator's states have in common.
type kind struct{ state.Kind }

func newKind(name string, size int, hash state.Fingerprint, work int64) kind {
	return kind{state.Kind{Package: "delta", File: stateKind, Name: name, Size: size, Hash: uint64(hash), Work: work}}
}

const (
	// maxSize bounds every number of a Config.
	maxSize = 1 << 24
	// maxFloats bounds the elements of a state.
	maxFloats = math.MaxInt32 / 4
)

func (k *kind) newState(cfg StateConfig) (*State, error) {
	fixed, err := k.New(cfg.Snapshots)
	if err != nil {
		return nil, err
	}
	return &State{fixed}, nil
}

// accept returns an error unless st is a state of k.
func (k *kind) accept(name string, st *State) error { return k.Accept(name, inside(st)) }

// acceptRead returns an error unless st is a state of k and m, of the argument name, a
// matrix [rows, cols] for what is read of it or written to it.
func (k *kind) acceptRead(st *State, name string, m blas32.General, rows, cols int, what string) error {
	return k.AcceptMatrix(inside(st), name, m, rows, cols, what)
}

// Len returns how many tokens the state has seen.
func (st *State) Len() int { return st.fixed.N }

// Bytes returns the memory of the state, with its snapshots.
func (st *State) Bytes() int64 { return st.fixed.Bytes() }

// Reset makes the state what NewState made it.
func (st *State) Reset() { st.fixed.Reset() }

// Clone returns a copy, snapshots included: a prefix that several continuations share.
func (st *State) Clone() *State { return &State{st.fixed.Clone()} }

// CopyFrom makes the state what another of the same operator is, without its snapshots;
// those of st are forgotten. It allocates nothing. Errors match ErrState.
func (st *State) CopyFrom(from *State) error { return st.fixed.CopyFrom("delta", inside(from)) }

// Truncate goes back to the first n tokens, of which the state must have a snapshot
// (StateConfig.Snapshots) unless n is Len, or 0 in a state that was never written to
// (Recurrence.Write, which makes a snapshot as a call does). It returns an error that matches
// ErrState, and changes nothing, where there is none.
func (st *State) Truncate(n int) error { return st.fixed.Truncate("delta", n) }

// Chunk is a grid of absolute positions at which sequences are cut, and tiny values of a
// state are set to 0: calls that are split there give the bits of the whole. It is that of
// package ssm.
const Chunk = ssm.Chunk
