package ssm

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/pack"
	"github.com/subquad/subquad/internal/state"
)

// StateConfig is what must be known of a state in advance.
type StateConfig struct {
	// Snapshots is how many earlier versions of itself the state keeps: those after
	// each of the last Snapshots calls, to which Truncate can go back. Each takes as
	// much memory as the state. 0 is none.
	Snapshots int
	// Filter, where it is given, filters the steps dt of the tokens that the state sees:
	// LongMamba. A longmamba.Filter must be of a calibration of the operator, or of one
	// with the same fingerprint: of one table for a Scan, SSD or block, of one for each
	// layer for a model.
	Filter FilterSource
	// Prompt is how many tokens the whole prompt has, in however many calls they
	// come: a filter chooses by it. An estimate does, rather high than low: tokens
	// after it are those of decoding, which a longmamba.Filter filters only where
	// FilterConfig.Decode is set.
	Prompt int
}

// State is what an operator remembers of the tokens it has seen: a window of a
// convolution, the states of a scan, or both, in memory that does not grow. An
// operator's NewState makes it, for that operator and all with the same fingerprint
// (Config and weights). Two calls must not use it at once.
type State struct {
	kind   *kind
	fixed  state.Fixed
	filter DeltaFilter // of the steps dt; nil for none
}

// kind is what an operator's states have in common.
type kind struct {
	state.Kind
	channels int // steps dt of a token that a filter can change; 0 for none
}

func newKind(name string, size int, hash state.Fingerprint, work int64, channels int) kind {
	return kind{state.Kind{Package: "ssm", File: stateKind, Name: name, Size: size, Hash: uint64(hash), Work: work}, channels}
}

const (
	maxTokens = state.MaxTokens
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
	filter, err := k.bind(cfg.Filter, cfg.Prompt)
	if err != nil {
		return nil, err
	}
	return &State{k, fixed, filter}, nil
}

// accept returns an error unless st is a state of k that can be used.
func (k *kind) accept(name string, st *State) error { return k.Accept(name, inside(st)) }

// acceptRead returns an error unless st is a state of k and m, of the argument name, a
// matrix [rows, cols] for what is read of it or written to it.
func (k *kind) acceptRead(st *State, name string, m blas32.General, rows, cols int, what string) error {
	return k.AcceptMatrix(inside(st), name, m, rows, cols, what)
}

// inside is what a state has in common with others that do not grow.
func inside(st *State) *state.Fixed {
	if st == nil {
		return nil
	}
	return &st.fixed
}

// Len returns how many tokens the state has seen.
func (st *State) Len() int { return st.fixed.N }

// Bytes returns the memory of the state, with its snapshots.
func (st *State) Bytes() int64 { return st.fixed.Bytes() }

// Reset makes the state what NewState made it; a filter stays.
func (st *State) Reset() { st.fixed.Reset() }

// Clone returns a copy, snapshots included: a prefix that several continuations
// share.
func (st *State) Clone() *State { return &State{st.kind, st.fixed.Clone(), st.filter} }

// CopyFrom makes the state what another of the same operator is, filter included and
// without its snapshots; those of st are forgotten. It allocates nothing. Errors match
// ErrState.
func (st *State) CopyFrom(from *State) error {
	if err := st.fixed.CopyFrom("ssm", inside(from)); err != nil {
		return err
	}
	st.filter = from.filter
	return nil
}

// Truncate goes back to the first n tokens, of which the state must have a snapshot
// (StateConfig.Snapshots) unless n is Len, or 0 in a state that was never written to (Write,
// which makes a snapshot as a call does). It returns an error that matches ErrState, and
// changes nothing, where there is none.
func (st *State) Truncate(n int) error { return st.fixed.Truncate("ssm", n) }

// Skip counts n more tokens as seen that the operator is not shown: it passes over
// them, as later layers do over those that a longmamba.Decimation drops. Errors match
// ErrCall for a negative n, ErrFull for more than a state can count, or ErrState.
func (st *State) Skip(n int) error {
	if err := st.fixed.Made("ssm"); err != nil {
		return err
	}
	if n < 0 {
		return check.Errorf(ErrCall, "ssm: n is %d, want 0 or more", n)
	}
	if err := st.fixed.Room(n); err != nil {
		return err
	}
	st.fixed.Advance(n)
	return nil
}

// Chunk is the grid of absolute positions at which tiny values of a state are
// flushed, and at which an SSD cuts sequences: calls that are split there give the
// bits of the whole.
const Chunk = 64

// untilBorder returns how many of n tokens, the first of which is at a position, there
// are up to the next multiple of Chunk.
func untilBorder(position, n int) int { return pack.Cut(position, n, Chunk) }

// flush sets tiny values to 0 in a state that has seen n tokens, if that is a multiple
// of Chunk.
func flush(values []float32, n int) {
	if n%Chunk == 0 {
		kernel.Flush(values)
	}
}

func cloned(x []float32) []float32 {
	if x == nil {
		return nil
	}
	return append([]float32{}, x...)
}
