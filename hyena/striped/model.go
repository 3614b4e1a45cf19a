package striped

import (
	"context"
	"io"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/lm"
)

// Model is a StripedHyena. It is immutable and safe for concurrent use.
type Model struct {
	cfg   Config
	stack *lm.Model
}

// Config returns the model's configuration, complete.
func (m *Model) Config() Config { return m.cfg }

// Bytes returns the memory of the weights, and of what is computed of them.
func (m *Model) Bytes() int64 { return m.stack.Bytes() }

// ScratchBytes returns the working memory that a call of one sequence of that many tokens
// takes, at the most, besides its arguments; a call without a state keeps the keys and values
// of its tokens meanwhile, which are in it.
func (m *Model) ScratchBytes(tokens int) int64 { return m.stack.ScratchBytes(tokens) }

// StateBytes returns the memory of a state, without snapshots, after as many tokens.
func (m *Model) StateBytes(tokens int) int64 { return m.stack.StateBytes(tokens) }

// Prepare is there for models that compute filters or tables in a first call of a length. A
// StripedHyena has none: it only checks its arguments, and returns ctx.Err() once ctx is done.
// Errors match ErrCall.
func (m *Model) Prepare(ctx context.Context, tokens int) error { return m.stack.Prepare(ctx, tokens) }

// State is what a model remembers of the tokens it has seen: keys and values of layers with
// attention, and of the others what does not grow. It is made by a model's NewState or
// ReadState, belongs to every model with the same configuration and weights, and must not be
// used by two calls at once. Its methods are
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
	// MaxTokens is the most tokens that the state may have, 0 for any number. With it, memory
	// is taken at once.
	MaxTokens int
	// Snapshots is how many earlier versions of itself the state keeps, those after each of
	// the last Snapshots calls, to which Truncate can go back. 0 is none.
	Snapshots int
	// Format is how keys and values are stored; 0 is Float32.
	Format asm.Format
}

// NewState returns an empty state. Errors match ErrConfig.
func (m *Model) NewState(cfg StateConfig) (*State, error) {
	return m.stack.NewState(lm.StateConfig{MaxTokens: cfg.MaxTokens, Snapshots: cfg.Snapshots, Format: cfg.Format})
}

// ReadState reads a state that State.WriteTo wrote, of this model or of one with the same
// configuration and weights. Errors match ErrState or are those of r.
func (m *Model) ReadState(r io.Reader) (*State, error) { return m.stack.ReadState(r) }

// OpenState is ReadState of a file; options are subquad.WithMmap, which maps it. Errors may
// also come from the file system.
func (m *Model) OpenState(path string, options ...subquad.OpenOption) (*State, error) {
	return lm.OpenState("striped", path, m.ReadState, options...)
}

// Call runs a model over one sequence or, with Offsets, over several. Outputs that are left
// zero are not made.
type Call struct {
	// Tokens are the sequence. Offsets packs several into one call: the first token of each
	// and at last len(Tokens).
	Tokens  []int32
	Offsets []int
	// State is where the sequence goes on from, and is brought up to date. States has a state
	// for each sequence; without Offsets each is for one token.
	State  *State
	States []*State

	// Hidden is set to the hidden states [n, D], after the last norm.
	Hidden blas32.General
	// Residuals, Layers + 1 matrices [n, D] of which some may be left zero, are set to the
	// embeddings and to r after each block.
	Residuals []blas32.General
	// Logits is set to the logits [n, V] of the token after each one, Last to those after each
	// sequence's last token.
	Logits, Last blas32.General
	// LogLikelihood is set to the natural logarithm of the probability of each target. Targets
	// are the tokens to predict, the first after Tokens[0]; a negative one is left out, with 0.
	// nil stands for Tokens[1:].
	LogLikelihood []float32
	Targets       []int32
	// Pooled is set to one vector of D for each sequence, by Pooling, of the tokens that Mask
	// counts; nil is all.
	Pooled  []float32
	Pooling Pooling
	Mask    []bool

	// Workers is how many goroutines the call may use, 0 for the configuration's.
	Workers int
}

// general returns the call as the stack takes it.
func (c *Call) general() lm.Call {
	return lm.Call{
		Tokens: c.Tokens, Offsets: c.Offsets, State: c.State, States: c.States,
		Hidden: c.Hidden, Residuals: c.Residuals, Logits: c.Logits, Last: c.Last, LogLikelihood: c.LogLikelihood, Targets: c.Targets,
		Pooled: c.Pooled, Pooling: c.Pooling, Mask: c.Mask, Workers: c.Workers,
	}
}

// Pooling makes one vector of a sequence's hidden states.
type Pooling = lm.Pooling

const (
	Mean  = lm.Mean  // the mean
	Sum   = lm.Sum   // the sum
	Max   = lm.Max   // the largest of each column
	First = lm.First // the first token's
	Last  = lm.Last  // the last token's
)

// Forward sets dst [n, V] to the logits after each of a sequence's tokens. Errors match
// ErrShape.
func (m *Model) Forward(dst blas32.General, tokens []int32) error {
	return m.stack.Forward(dst, tokens)
}

// Step sets dst [n, V] to the logits after each of the next tokens, one or many, after those
// the state has seen. Any split gives what Forward gives, to float32 accuracy. Errors match
// those of Run.
func (m *Model) Step(dst blas32.General, tokens []int32, st *State) error {
	return m.stack.Step(dst, tokens, st)
}

// StepBatch sets dst [states, V] to the logits after one more token for each of many states;
// weights are read once. Each gives what it gives alone, to the bit. Errors match those of
// Run.
func (m *Model) StepBatch(dst blas32.General, tokens []int32, states []*State) error {
	return m.stack.StepBatch(dst, tokens, states)
}

// Run is Forward, Step and StepBatch with everything optional. Errors match ErrShape, ErrCall,
// ErrState or ErrFull, or are ctx.Err() itself once ctx is done; outputs are then unspecified,
// and states stand after a whole number of the call's pieces of tokens, in all layers: Len
// tells where. A piece is at most 512 tokens.
func (m *Model) Run(ctx context.Context, call *Call) error {
	if err := check.Call("striped", ctx, call != nil); err != nil {
		return err
	}
	c := call.general()
	return m.stack.Run(ctx, &c)
}
