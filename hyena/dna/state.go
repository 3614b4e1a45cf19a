package dna

import (
	"io"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/lm"
)

// State is what a model remembers of the tokens it has seen: the inputs of its long
// convolutions and a share of the sums of outputs to come, 12 to 24 Layers (Order-1) D bytes
// for each token. It is made by a model's NewState or ReadState, belongs to every model with
// the same configuration and weights, and must not be used by two calls at once. Its methods
// are
//
//	Len() int                  how many tokens it has seen
//	Bytes() int64              its memory, with its snapshots
//	Reset()                    makes it empty
//	Clone() *State             a fork, snapshots included
//	CopyFrom(*State) error     makes it what another is
//	Truncate(n int) error      goes back to 0 or to a snapshot; else ErrState
//	WriteTo(io.Writer)         stores it, without snapshots
type State = lm.State

// StateConfig is what must be known of a state in advance.
type StateConfig struct {
	// MaxTokens is the most tokens that the state may have, 0 for MaxLen. With it, memory is
	// taken at once, and steps allocate nothing.
	MaxTokens int
	// Snapshots is how many earlier versions of itself the state keeps, those after each of
	// the last Snapshots calls, to which Truncate can go back. 0 is none.
	Snapshots int
}

// NewState returns an empty state. Errors match ErrConfig.
func (m *Model) NewState(cfg StateConfig) (*State, error) {
	return m.stack.NewState(lm.StateConfig{MaxTokens: cfg.MaxTokens, Snapshots: cfg.Snapshots})
}

// StateBytes returns the memory of a state, without snapshots, after as many tokens.
func (m *Model) StateBytes(tokens int) int64 { return m.stack.StateBytes(tokens) }

// ReadState reads a state that State.WriteTo wrote, of this model or of one with the same
// configuration and weights. Errors match ErrState or are those of r.
func (m *Model) ReadState(r io.Reader) (*State, error) { return m.stack.ReadState(r) }

// OpenState is ReadState of a file; options are subquad.WithMmap, which maps it. Errors
// may also come from the file system.
func (m *Model) OpenState(path string, options ...subquad.OpenOption) (*State, error) {
	return lm.OpenState("dna", path, m.ReadState, options...)
}

// Step sets dst [n, V] to the logits after each of the next tokens, one or many, after those
// the state has seen. Any split gives what a call of the whole sequence gives, to the accuracy
// of its Fourier convolutions. n tokens, one by one, cost n log2(n)^2 in the long convolutions
// (hyena.Conv.Step). Errors match ErrShape, ErrState or ErrFull.
func (m *Model) Step(dst blas32.General, tokens []int32, st *State) error {
	return m.stack.Step(dst, tokens, st)
}

// StepBatch sets dst [states, V] to the logits after one more token for each of many states.
// Each gives what it gives alone, to the bit. Errors match those of Run.
func (m *Model) StepBatch(dst blas32.General, tokens []int32, states []*State) error {
	return m.stack.StepBatch(dst, tokens, states)
}
