package rwkv

import (
	"context"
	"io"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/ssm/delta"
)

// Model is an RWKV-7 language model. It is immutable and safe for concurrent use.
type Model struct {
	cfg   Config
	stack *lm.Model
}

// Config returns the model's configuration, complete.
func (m *Model) Config() Config { return m.cfg }

// Bytes returns the memory of the weights.
func (m *Model) Bytes() int64 { return m.stack.Bytes() }

// ScratchBytes returns the working memory that a call of one sequence of that many
// tokens takes, at the most, besides its arguments; from 512 tokens on it does not grow.
func (m *Model) ScratchBytes(tokens int) int64 { return m.stack.ScratchBytes(tokens) }

// StateBytes returns the memory of a state, without snapshots; it does not grow with tokens.
func (m *Model) StateBytes(tokens int) int64 { return m.stack.StateBytes(tokens) }

// Prepare is there for models that compute filters or tables in a first call of a length.
// An RWKV has none: it only checks its arguments, and returns ctx.Err() once ctx is done.
// Errors match ErrCall.
func (m *Model) Prepare(ctx context.Context, tokens int) error { return m.stack.Prepare(ctx, tokens) }

// State is what a model remembers of the tokens it has seen, in memory that does not
// grow: a prefix that can be kept, copied and gone on from. It is made by a model's
// NewState or ReadState, belongs to every model with the same configuration and weights,
// and must not be used by two calls at once. Its methods are
//
//	Len() int                  how many tokens it has seen
//	Bytes() int64              its memory, with its snapshots
//	Reset()                    makes it empty
//	Clone() *State             a fork, snapshots included
//	CopyFrom(*State) error     makes it what another is, without allocation
//	Truncate(n int) error      goes back to 0 or to a snapshot; else ErrState
//	WriteTo(io.Writer)         stores it, without snapshots
type State = lm.State

// StateConfig says what must be known of a state in advance: Snapshots, how many versions of
// itself after earlier calls it keeps, for Truncate.
type StateConfig = delta.StateConfig

// NewState returns an empty state. Errors match ErrConfig.
func (m *Model) NewState(cfg StateConfig) (*State, error) {
	return m.stack.NewState(lm.StateConfig{Snapshots: cfg.Snapshots})
}

// ReadState reads a state that State.WriteTo wrote, of this model or of one with the same
// configuration and weights. Errors match ErrState or are those of r.
func (m *Model) ReadState(r io.Reader) (*State, error) { return m.stack.ReadState(r) }

// OpenState is ReadState of a file; options are subquad.WithMmap, which maps it. Errors
// may also come from the file system.
func (m *Model) OpenState(path string, options ...subquad.OpenOption) (*State, error) {
	return lm.OpenState("rwkv", path, m.ReadState, options...)
}

// Forward sets dst [n, V] to the logits after each of a sequence's tokens.
//
// Working memory does not depend on n, and after the first call nothing is
// allocated. Errors match ErrShape.
func (m *Model) Forward(dst blas32.General, tokens []int32) error {
	return m.stack.Forward(dst, tokens)
}

// Step sets dst [n, V] to the logits after each of the next tokens, one or many,
// after those the state has seen. Any split gives what Forward gives, to about 1e-5
// of the largest logit, and the same split the same bits. Errors match those of Run.
func (m *Model) Step(dst blas32.General, tokens []int32, st *State) error {
	return m.stack.Step(dst, tokens, st)
}

// StepBatch sets dst [states, V] to the logits after one more token for each of
// many states; weights are read once. Each gives what it gives alone, to the bit. Errors match
// those of Run.
func (m *Model) StepBatch(dst blas32.General, tokens []int32, states []*State) error {
	return m.stack.StepBatch(dst, tokens, states)
}

// Run is Forward, Step and StepBatch with everything optional. Errors match ErrShape,
// ErrCall or ErrState, or are ctx.Err() itself once ctx is done; outputs are then
// unspecified, and states stand after a whole number of the call's pieces of tokens, in
// all layers: Len tells where. A piece is at most 512 tokens. ctx is looked at on its way,
// but not within a single token, for which the state would have to be copied first.
func (m *Model) Run(ctx context.Context, call *Call) error {
	if err := check.Call("rwkv", ctx, call != nil); err != nil {
		return err
	}
	c := call.general()
	return m.stack.Run(ctx, &c)
}

// RunBatch runs many calls: short ones side by side, long ones one after the other. Each
// gives what it gives alone, to the bit; no state may be in two of them. All are checked
// before any is run. Workers of a call count for itself, as many as the configuration has
// for the batch. To read weights once for many sequences, pack them into one call. Errors
// match those of Run.
func (m *Model) RunBatch(ctx context.Context, calls []*Call) error {
	list := make([]*lm.Call, len(calls))
	for i, c := range calls {
		if c != nil {
			general := c.general()
			list[i] = &general
		}
	}
	return m.stack.RunBatch(ctx, list)
}
