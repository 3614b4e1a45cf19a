package ssm

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/pack"
	"github.com/subquad/subquad/internal/parallel"
)

// BlockCall is a call of a block with everything optional.
type BlockCall struct {
	// Dst and X are [n, Dim]; Dst may be X.
	Dst, X blas32.General
	// State is where the sequence begins, and is brought up to date; nil is an empty
	// one, and nothing kept.
	State *State
	// Offsets packs several sequences into one call: the first row of each and at
	// last n. States, if given, has a state for each; without Offsets each is for one
	// row.
	Offsets []int
	States  []*State
	// Filter changes dt, of channels in a Mamba, of heads in a Mamba2, after the filter
	// of a state (StateConfig).
	Filter DeltaFilter
	// Workers is how many goroutines the call may use, 0 for the Config's.
	Workers int
}

// Forward runs a whole sequence, dst and x [n, Dim], from an empty state. dst may
// be x. Working memory does not depend on n; after the first call nothing is
// allocated. Errors match ErrShape.
func (b *block) Forward(dst, x blas32.General) error {
	return b.Run(context.Background(), &BlockCall{Dst: dst, X: x})
}

// Step runs the next tokens, one or many, after those the state has seen. Errors match
// those of Run.
func (b *block) Step(dst, x blas32.General, st *State) error {
	if err := b.kind.accept("State", st); err != nil {
		return err
	}
	return b.Run(context.Background(), &BlockCall{Dst: dst, X: x, State: st})
}

// StepBatch runs one token, a row, for each of many states, reading the weights once:
// Run with States. Errors match those of Run.
func (b *block) StepBatch(dst, x blas32.General, states []*State) error {
	return b.Run(context.Background(), &BlockCall{Dst: dst, X: x, States: pack.EachRow(states)})
}

// Run is Forward, Step and StepBatch with everything optional. Errors match ErrShape,
// ErrCall, ErrState or ErrFull, or are ctx.Err(). After an error states are as they
// were, and Dst is unspecified. A call of one token, or of little work, looks at ctx
// once, before it begins.
func (b *block) Run(ctx context.Context, call *BlockCall) error {
	if err := b.checkCall(ctx, call); err != nil {
		return err
	}
	s := b.scratch.list.Get()
	defer b.scratch.list.Put(s)
	ctx, err := s.segments.begin(ctx, &b.kind, batchOf(call.X, call.State, call.Offsets, call.States), call.Filter)
	if err != nil {
		return err
	}
	for err == nil && s.segments.more() {
		err = s.passAll(ctx, b, call, parallel.Choose(b.workers, call.Workers))
	}
	return s.segments.end(err)
}

func (b *block) checkCall(ctx context.Context, call *BlockCall) error {
	if err := check.Call("ssm", ctx, call != nil); err != nil {
		return err
	}
	if err := checkInputs(call.Dst, call.X.Rows, []input{{"X", call.X, b.dim, "Dim", false}}); err != nil {
		return err
	}
	return check.Workers(ErrCall, "ssm", call.Workers)
}
