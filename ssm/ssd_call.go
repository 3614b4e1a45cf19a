package ssm

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/pack"
	"github.com/subquad/subquad/internal/parallel"
)

// SSDCall is a call of SSD with everything optional.
type SSDCall struct {
	// Dst and X are [n, H P], Dt is [n, H]. Dst may be X.
	Dst, X, Dt blas32.General
	// B and C are [n, G N].
	B, C blas32.General
	// Z [n, H P], where it is given, gates the result.
	Z blas32.General
	// Decay [n, H], where it is given, is the logarithm of the decay, in place of
	// dt A; Dt may then be left out, and is 1. This is how retention, gated linear
	// attention with one gate for a head, and mLSTM without its normaliser are run.
	Decay blas32.General
	// State is where the sequence begins, and is brought up to date; nil is zero,
	// and nothing kept.
	State *State
	// Offsets packs several sequences into one call: the first row of each and at
	// last n. States, if given, has a state for each; without Offsets each is for one
	// row.
	Offsets []int
	States  []*State
	// Filter changes dt, of heads, after the filter of a state (StateConfig).
	Filter DeltaFilter
	// Workers is how many goroutines the call may use, 0 for the Config's.
	Workers int
}

// Forward runs a whole sequence from a state of zero, its arguments those of SSDCall; dst may
// be x. Working memory does not depend on the length; after the first call nothing is
// allocated. Errors match ErrShape, or ErrCall where the weights have no A.
func (op *SSD) Forward(dst, x, dt, b, c blas32.General) error {
	return op.Run(context.Background(), &SSDCall{Dst: dst, X: x, Dt: dt, B: b, C: c})
}

// Step runs the next tokens, one or many, after those the state has seen. Errors match
// those of Run.
func (op *SSD) Step(dst, x, dt, b, c blas32.General, st *State) error {
	if err := op.kind.accept("State", st); err != nil {
		return err
	}
	return op.Run(context.Background(), &SSDCall{Dst: dst, X: x, Dt: dt, B: b, C: c, State: st})
}

// StepBatch runs one token, a row, for each of many states: Run with States. Errors match
// those of Run.
func (op *SSD) StepBatch(dst, x, dt, b, c blas32.General, states []*State) error {
	return op.Run(context.Background(), &SSDCall{Dst: dst, X: x, Dt: dt, B: b, C: c, States: pack.EachRow(states)})
}

// Run is Forward, Step and StepBatch with everything optional. Errors match ErrShape,
// ErrCall, ErrState or ErrFull, or are ctx.Err(). After an error states are as they
// were, and Dst is unspecified. A call of one token, or of little work, looks at ctx
// once, before it begins.
func (op *SSD) Run(ctx context.Context, call *SSDCall) error {
	if err := op.checkCall(ctx, call); err != nil {
		return err
	}
	w := op.scratch.Get()
	defer op.scratch.Put(w)
	ctx, err := w.segments.begin(ctx, &op.kind, batchOf(call.X, call.State, call.Offsets, call.States), call.Filter)
	if err != nil {
		return err
	}
	for err == nil && w.segments.more() {
		err = w.sweep(ctx, op, call, w.segments.list, parallel.Choose(op.cfg.Workers, call.Workers))
	}
	return w.segments.end(err)
}

func (op *SSD) checkCall(ctx context.Context, call *SSDCall) error {
	if err := check.Call("ssm", ctx, call != nil); err != nil {
		return err
	}
	wide, shared, heads := op.cfg.Heads*op.cfg.HeadDim, op.cfg.Groups*op.cfg.States, op.cfg.Heads
	decay := mat.Given(call.Decay)
	if op.a == nil && !decay {
		return check.Errorf(ErrCall, "ssm: Decay is missing, and the weights have no A")
	}
	if err := checkInputs(call.Dst, call.X.Rows, []input{
		{"X", call.X, wide, "Heads*HeadDim", false},
		{"Dt", call.Dt, heads, "Heads", decay && !mat.Given(call.Dt)},
		{"B", call.B, shared, "Groups*States", false},
		{"C", call.C, shared, "Groups*States", false},
		{"Z", call.Z, wide, "Heads*HeadDim", !mat.Given(call.Z)},
		{"Decay", call.Decay, heads, "Heads", !decay},
	}); err != nil {
		return err
	}
	return check.Workers(ErrCall, "ssm", call.Workers)
}
