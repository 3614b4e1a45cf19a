package ssm

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/pack"
	"github.com/subquad/subquad/internal/parallel"
)

// ScanCall is a call of Scan with everything optional.
type ScanCall struct {
	// Dst, X and Dt are [n, D]. Dst may be X.
	Dst, X, Dt blas32.General
	// B and C are [n, G N], unless the weights have them.
	B, C blas32.General
	// Z [n, D], where it is given, gates the result.
	Z blas32.General
	// State is where the scan begins, and is brought up to date; nil is zero, and
	// nothing kept.
	State *State
	// Offsets packs several sequences into one call: the first row of each and at
	// last n. States, if given, has a state for each; without Offsets each is for one
	// row.
	Offsets []int
	States  []*State
	// Filter changes dt, after the filter of a state (StateConfig).
	Filter DeltaFilter
	// Workers is how many goroutines the call may use, 0 for the Config's.
	Workers int
}

// Forward scans a whole sequence from a state of zero, its arguments those of ScanCall; dst
// may be x. Working memory does not depend on the length; after the first call nothing is
// allocated. Errors match ErrShape.
func (op *Scan) Forward(dst, x, dt, b, c blas32.General) error {
	return op.Run(context.Background(), &ScanCall{Dst: dst, X: x, Dt: dt, B: b, C: c})
}

// Step scans the next tokens, one or many, after those the state has seen. Errors match
// those of Run.
func (op *Scan) Step(dst, x, dt, b, c blas32.General, st *State) error {
	if err := op.kind.accept("State", st); err != nil {
		return err
	}
	return op.Run(context.Background(), &ScanCall{Dst: dst, X: x, Dt: dt, B: b, C: c, State: st})
}

// StepBatch scans one token, a row, for each of many states: Run with States. Errors match
// those of Run.
func (op *Scan) StepBatch(dst, x, dt, b, c blas32.General, states []*State) error {
	return op.Run(context.Background(), &ScanCall{Dst: dst, X: x, Dt: dt, B: b, C: c, States: pack.EachRow(states)})
}

// Run is Forward, Step and StepBatch with everything optional. Errors match ErrShape,
// ErrCall, ErrState or ErrFull, or are ctx.Err(). After an error states are as they
// were, and Dst is unspecified. A call of one token, or of little work, looks at ctx
// once, before it begins.
func (op *Scan) Run(ctx context.Context, call *ScanCall) error {
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
		err = w.scan(ctx, op, call, w.segments.list, parallel.Choose(op.cfg.Workers, call.Workers))
	}
	return w.segments.end(err)
}

func (op *Scan) checkCall(ctx context.Context, call *ScanCall) error {
	if err := check.Call("ssm", ctx, call != nil); err != nil {
		return err
	}
	d, shared := op.cfg.Channels, op.cfg.Groups*op.cfg.States
	if err := checkInputs(call.Dst, call.X.Rows, []input{
		{"X", call.X, d, "Channels", false},
		{"Dt", call.Dt, d, "Channels", false},
		{"B", call.B, shared, "Groups*States", op.b != nil},
		{"C", call.C, shared, "Groups*States", op.c != nil},
		{"Z", call.Z, d, "Channels", !mat.Given(call.Z)},
	}); err != nil {
		return err
	}
	return check.Workers(ErrCall, "ssm", call.Workers)
}
