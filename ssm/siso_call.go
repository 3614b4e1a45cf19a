package ssm

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/pack"
	"github.com/subquad/subquad/internal/parallel"
)

// SISOCall is a call of SISO with everything optional.
type SISOCall struct {
	// Dst and X (upstream's V) are [n, H P]. Dst may be X.
	Dst, X blas32.General
	// B and C (upstream's K and Q) are [n, G N].
	B, C blas32.General
	// Dt are the steps after their softplus, Decay is A dt, Trap is before its
	// sigmoid: [n, H].
	Dt, Decay, Trap blas32.General
	// Angles [n, H Angles] are before their tanh.
	Angles blas32.General
	// Z [n, H P], where it is given, gates the result.
	Z blas32.General
	// State is where the sequence begins, and is brought up to date; nil is zero,
	// and nothing kept.
	State *State
	// Offsets packs several sequences into one call: the first row of each and at
	// last n. States, if given, has a state for each; without Offsets each is for one
	// row.
	Offsets []int
	States  []*State
	// Workers is how many goroutines the call may use, 0 for the Config's.
	Workers int
}

// Forward runs a whole sequence from a state of zero, its arguments those of
// SISOCall; dst may be x. Working memory does not depend on the length; after the first
// call nothing is allocated. Errors match ErrShape.
func (op *SISO) Forward(dst, x, dt, decay, trap, b, c, angles blas32.General) error {
	return op.Run(context.Background(), &SISOCall{Dst: dst, X: x, Dt: dt, Decay: decay, Trap: trap, B: b, C: c, Angles: angles})
}

// Step runs the next tokens, one or many, after those the state has seen. Any
// split of a sequence gives the same bits. Errors match those of Run.
func (op *SISO) Step(dst, x, dt, decay, trap, b, c, angles blas32.General, st *State) error {
	if err := op.kind.accept("State", st); err != nil {
		return err
	}
	return op.Run(context.Background(), &SISOCall{Dst: dst, X: x, Dt: dt, Decay: decay, Trap: trap, B: b, C: c, Angles: angles, State: st})
}

// StepBatch runs one token, a row, for each of many states: Run with States. Errors match
// those of Run.
func (op *SISO) StepBatch(dst, x, dt, decay, trap, b, c, angles blas32.General, states []*State) error {
	return op.Run(context.Background(), &SISOCall{Dst: dst, X: x, Dt: dt, Decay: decay, Trap: trap, B: b, C: c, Angles: angles, States: pack.EachRow(states)})
}

// Run is Forward, Step and StepBatch with everything optional. Errors match ErrShape,
// ErrCall, ErrState or ErrFull, or are ctx.Err(). After an error states are as they
// were, and Dst is unspecified. A call of one token, or of little work, looks at ctx
// once, before it begins.
func (op *SISO) Run(ctx context.Context, call *SISOCall) error {
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
		err = w.turnHeads(ctx, op, call, parallel.Choose(op.cfg.Workers, call.Workers))
	}
	return w.segments.end(err)
}

func (op *SISO) checkCall(ctx context.Context, call *SISOCall) error {
	if err := check.Call("ssm", ctx, call != nil); err != nil {
		return err
	}
	wide, shared, heads := op.cfg.Heads*op.cfg.HeadDim, op.cfg.Groups*op.cfg.States, op.cfg.Heads
	if err := checkInputs(call.Dst, call.X.Rows, []input{
		{"X", call.X, wide, "Heads*HeadDim", false},
		{"B", call.B, shared, "Groups*States", false},
		{"C", call.C, shared, "Groups*States", false},
		{"Dt", call.Dt, heads, "Heads", false},
		{"Decay", call.Decay, heads, "Heads", false},
		{"Trap", call.Trap, heads, "Heads", false},
		{"Angles", call.Angles, heads * op.cfg.Angles, "Heads*Angles", op.cfg.Angles == 0 && !mat.Given(call.Angles)},
		{"Z", call.Z, wide, "Heads*HeadDim", !mat.Given(call.Z)},
	}); err != nil {
		return err
	}
	return check.Workers(ErrCall, "ssm", call.Workers)
}
