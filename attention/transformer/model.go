package transformer

import (
	"context"
	"io"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/lm"
)

// Model is a decoder-only transformer, or a hybrid of one and recurrent layers. It is immutable and safe for concurrent use.
type Model struct {
	shape Shape
	cfg   Config
	stack *lm.Model
}

// Shape returns what the model consists of, a copy.
func (m *Model) Shape() Shape {
	s := m.shape
	s.Windows, s.Rotations, s.EOS = slices.Clone(s.Windows), slices.Clone(s.Rotations), slices.Clone(s.EOS)
	s.Kinds, s.Latent, s.Mamba, s.Delta, s.Experts = slices.Clone(s.Kinds), cloned(s.Latent), cloned(s.Mamba), cloned(s.Delta), cloned(s.Experts)
	if s.Experts != nil {
		s.Experts.Sparse = slices.Clone(s.Experts.Sparse)
	}
	return s
}

// cloned returns a copy of what a pointer points to.
func cloned[T any](x *T) *T {
	if x == nil {
		return nil
	}
	y := *x
	return &y
}

// Config returns what the model was opened with.
func (m *Model) Config() Config { return m.cfg }

// Bytes returns the memory of the weights.
func (m *Model) Bytes() int64 { return m.stack.Bytes() }

// ScratchBytes returns the working memory that a call of one sequence of that many tokens
// takes, at the most, besides its arguments; a call without a state keeps the keys and
// values of its tokens meanwhile, which are in it.
func (m *Model) ScratchBytes(tokens int) int64 { return m.stack.ScratchBytes(tokens) }

// StateBytes returns the memory of a state of that many tokens that keeps all of them, in
// float32, without snapshots, as with StateConfig.MaxTokens: without, a state that grows takes
// up to twice as much. What a Replacement's states take is found with a few tokens, and beyond
// 1,024 taken to grow as it does there. Under a policy State.Bytes tells.
func (m *Model) StateBytes(tokens int) int64 { return m.stack.StateBytes(tokens) }

// Prepare is there for models that compute filters or tables in a first call of a length.
// A transformer has none: it only checks its arguments, and returns ctx.Err() once ctx is
// done. Errors match ErrCall.
func (m *Model) Prepare(ctx context.Context, tokens int) error { return m.stack.Prepare(ctx, tokens) }

// State is what a model remembers of the tokens it has seen, a prefix that can be kept,
// copied and gone on from: keys and values of all layers. It is made by a model's NewState
// or ReadState, belongs to every model with the same configuration and weights, and must not
// be used by two calls at once. Its methods are
//
//	Len() int                  how many tokens it has seen
//	Bytes() int64              its memory, with its snapshots
//	Reset()                    makes it empty
//	Clone() *State             a fork, snapshots included
//	CopyFrom(*State) error     makes it what another is
//	Truncate(n int) error      goes back to its first n tokens; with a window or a recurrent
//	                           layer, to 0 or a snapshot
//	WriteTo(io.Writer)         stores it, without snapshots
type State = lm.State

// StateConfig says what must be known of a state in advance, and how it keeps keys and
// values. The zero value keeps all tokens, in float32, and grows as they come.
//
//	Snapshots      how many versions after earlier calls Truncate can go back to, with a window
//	               or recurrent layers
//	MaxTokens      the most tokens that the state may have, 0 for any number; memory for them
//	               is taken at once, and more of them are an error that matches ErrFull
//	Length         how many tokens the sequence will have, where a rotation depends on it
//	               (LongRoPE, dynamic NTK); 0 is a short one. Calls without a state know it
//	Policy         what becomes of such a rotation while the sequence grows (package rope)
//	Format         Float32, BFloat16, Float16 or Int8
//	Window, Keep   queries see the last Window tokens and the first Keep only, and no others
//	               are kept: memory does not grow, and a text may be endless (attention sinks;
//	               Xiao et al. 2023, arXiv 2309.17453). Tokens keep their own positions
//	WindowsOnly    layers with a window of their own keep no more than that, rather than all
//	               tokens for Truncate's sake
//	Policies       what attention looks at and forgets, layer by layer: package kvcache's
//	               policies, and positions with which prompts may be longer than those of the
//	               training (InfLLM, TokenSelect) and dialogues endless (StreamingLLM, SirLLM);
//	               Model.Endless and Model.SelfExtend return two that are common; see Past.
//	               nil for a layer is plain attention. A state that was stored is read by
//	               ReadStateWith
type StateConfig = lm.StateConfig

// NewState returns an empty state. Errors match ErrConfig.
func (m *Model) NewState(cfg StateConfig) (*State, error) { return m.stack.NewState(cfg) }

// ReadState reads a state that State.WriteTo wrote, of this model or of one with the same
// configuration and weights. Errors match ErrState or are those of r.
func (m *Model) ReadState(r io.Reader) (*State, error) { return m.stack.ReadState(r) }

// ReadStateWith is ReadState of a state with Policies: those of cfg, and its Length and Policy,
// must be what NewState was given, for a file can only tell that they are not. MaxTokens and
// Format are the file's. Errors are those of ReadState, or match ErrConfig where a policy is none.
func (m *Model) ReadStateWith(r io.Reader, cfg StateConfig) (*State, error) {
	return m.stack.ReadStateWith(r, cfg)
}

// OpenState is ReadState of a file; options are subquad.WithMmap, which maps it. Errors
// may also come from the file system.
func (m *Model) OpenState(path string, options ...subquad.OpenOption) (*State, error) {
	return lm.OpenState("transformer", path, m.ReadState, options...)
}

// Forward sets dst [n, V] to the logits after each of a sequence's tokens. Errors match
// ErrShape.
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
// ErrCall, ErrState or ErrFull, or are ctx.Err() itself once ctx is done; outputs are then
// unspecified, and states stand after a whole number of the call's pieces of tokens, in
// all layers: Len tells where. A piece is at most 512 tokens.
func (m *Model) Run(ctx context.Context, call *Call) error {
	if err := check.Call("transformer", ctx, call != nil); err != nil {
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
