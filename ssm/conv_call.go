package ssm

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/pack"
	"github.com/subquad/subquad/internal/parallel"
)

// ConvCall is a call of Conv with everything optional.
type ConvCall struct {
	// Dst and X are [n, D]; Dst shares no element with X.
	Dst, X blas32.General
	// State is what comes before the rows, and is brought up to date; nil is
	// nothing, and nothing kept.
	State *State
	// Offsets packs several sequences into one call: the first row of each and at
	// last n. States, if given, has a state for each; without Offsets each is for one
	// row.
	Offsets []int
	States  []*State
	// Workers is how many goroutines the call may use, 0 for the Config's.
	Workers int
}

// Forward convolves a whole sequence: dst and x are [n, D] and share no element. After the
// first call nothing is allocated. Errors match ErrShape.
func (op *Conv) Forward(dst, x blas32.General) error {
	return op.Run(context.Background(), &ConvCall{Dst: dst, X: x})
}

// Step convolves the next tokens, one or many, after those the state has seen.
// Any split of a sequence gives the same bits. Errors match those of Run.
func (op *Conv) Step(dst, x blas32.General, st *State) error {
	if err := op.kind.accept("State", st); err != nil {
		return err
	}
	return op.Run(context.Background(), &ConvCall{Dst: dst, X: x, State: st})
}

// StepBatch convolves one token, a row, for each of many states: Run with States. Errors match
// those of Run.
func (op *Conv) StepBatch(dst, x blas32.General, states []*State) error {
	return op.Run(context.Background(), &ConvCall{Dst: dst, X: x, States: pack.EachRow(states)})
}

// Run is Forward, Step and StepBatch with everything optional. Errors match ErrShape,
// ErrCall, ErrState or ErrFull, or are ctx.Err(). After an error states are as they
// were, and Dst is unspecified. A call of one token, or of little work, looks at ctx
// once, before it begins.
func (op *Conv) Run(ctx context.Context, call *ConvCall) error {
	if err := op.checkCall(ctx, call); err != nil {
		return err
	}
	w := op.scratch.Get()
	defer op.scratch.Put(w)
	ctx, err := w.segments.begin(ctx, &op.kind, batchOf(call.X, call.State, call.Offsets, call.States), nil)
	if err != nil {
		return err
	}
	for err == nil && w.segments.more() {
		err = w.convolve(ctx, op, call.Dst, call.X, w.segments.list, parallel.Choose(op.cfg.Workers, call.Workers))
	}
	return w.segments.end(err)
}

func (op *Conv) checkCall(ctx context.Context, call *ConvCall) error {
	if err := check.Call("ssm", ctx, call != nil); err != nil {
		return err
	}
	channels := op.taps.Cols
	if err := check.Matrix(ErrShape, "ssm", "X", call.X, -1, channels, "channels"); err != nil {
		return err
	}
	if err := check.Output(ErrShape, "ssm", call.Dst, call.X.Rows, channels, "channels", call.X, false); err != nil {
		return err
	}
	return check.Workers(ErrCall, "ssm", call.Workers)
}
