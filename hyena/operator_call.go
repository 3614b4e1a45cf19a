package hyena

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/pack"
	"github.com/subquad/subquad/internal/parallel"
)

// OperatorCall is a call of Operator with everything optional.
type OperatorCall struct {
	// Dst and X are [tokens, Dim]; Dst may be X.
	Dst, X blas32.General
	// Offsets packs several sequences into one call: the first row of each and at last the
	// number of rows.
	Offsets []int
	// State is where the sequence goes on from, and is brought up to date. States has a state
	// for each sequence; without Offsets each is for one row.
	State  *State
	States []*State
	// Workers is how many goroutines the call may use, 0 for the Config's.
	Workers int
}

// Forward applies the operator to a whole sequence: x and dst are [tokens, Dim],
// at most MaxLen tokens. dst may be x. After the first call of a length, which computes
// the filter and its spectra (as Prepare does), it allocates nothing.
//
// It costs 2 tokens Dim^2 (Order+2) flop for the projections and the long
// convolutions' own, and Order tokens Dim float32 of working memory beside
// those of Conv. Errors match ErrShape.
func (op *Operator) Forward(dst, x blas32.General) error {
	return op.Run(context.Background(), &OperatorCall{Dst: dst, X: x})
}

// Step applies the operator to the next tokens, one or many, after those the state has seen,
// MaxLen of them in all: any split of a sequence gives what Forward gives, to the accuracy of
// Fourier convolutions (Conv.Step says how). Errors match ErrShape, ErrState or ErrFull.
func (op *Operator) Step(dst, x blas32.General, st *State) error {
	if err := op.kind.accept("State", st); err != nil {
		return err
	}
	return op.Run(context.Background(), &OperatorCall{Dst: dst, X: x, State: st})
}

// StepBatch applies it to one token, a row, for each of many states: Run with States. Errors
// match those of Run.
func (op *Operator) StepBatch(dst, x blas32.General, states []*State) error {
	return op.Run(context.Background(), &OperatorCall{Dst: dst, X: x, States: pack.EachRow(states)})
}

// Run is Forward, Step and StepBatch with everything optional. Errors match ErrShape (and
// ErrTooLong), ErrCall, ErrState or ErrFull, and leave Dst as it is; once ctx is done Run
// returns ctx.Err() and leaves Dst in an unspecified state, and the states as they were.
func (op *Operator) Run(ctx context.Context, call *OperatorCall) error {
	if err := check.Call(pkg, ctx, call != nil); err != nil {
		return err
	}
	if err := check.Matrix(ErrShape, pkg, "x", call.X, -1, op.cfg.Dim, "Dim"); err != nil {
		return err
	}
	alone := call.Offsets == nil && call.State == nil && call.States == nil
	if alone {
		if err := op.checkLength("x", call.X.Rows); err != nil {
			return err
		}
	}
	if err := check.Output(ErrShape, pkg, call.Dst, call.X.Rows, op.cfg.Dim, "Dim", call.X, true); err != nil {
		return err
	}
	workers, err := chooseWorkers(op.cfg.Workers, call.Workers)
	if err != nil {
		return err
	}
	r := op.scratch.operators.Get()
	defer op.scratch.operators.Put(r)
	if alone {
		if call.X.Rows == 0 {
			return ctx.Err()
		}
		return check.Wrap(ctx, pkg, r.apply(ctx, op, call.Dst, call.X, nil, workers))
	}
	inner, err := r.past.begin(ctx, &op.kind, batchOf(call.X, call.Offsets, call.State, call.States))
	if err != nil {
		return err
	}
	for _, g := range r.past.layout.Segments {
		if err := op.checkLength("a sequence of x", g.To-g.From); err != nil {
			r.past.layout.Clear()
			return err
		}
	}
	return check.Wrap(ctx, pkg, r.past.end(r.applyEach(inner, op, call, workers)))
}

// Prepare computes and keeps what the first call of this many tokens would: the filter's
// rows and their spectra, as far as the Cache has room. Bytes counts them. Errors match
// ErrCall or ErrTooLong; once ctx is done it returns ctx.Err(), and keeps what is ready.
func (op *Operator) Prepare(ctx context.Context, tokens int) error {
	if err := checkTokens(ctx, tokens); err != nil {
		return err
	}
	if err := op.checkLength("tokens", tokens); err != nil {
		return err
	}
	for _, c := range op.convs {
		if err := c.Prepare(ctx, tokens); err != nil {
			return err
		}
	}
	return nil
}

// checkLength checks the length of a sequence, against MaxLen and against what can
// be addressed.
func (op *Operator) checkLength(name string, tokens int) error {
	switch {
	case tokens > op.maxLen:
		return check.Errorf(ErrTooLong, "hyena: %s has %d rows, more than MaxLen = %d", name, tokens, op.maxLen)
	case check.Product(math.MaxInt/4, tokens, op.cfg.Dim, op.cfg.Order) < 0:
		return check.Errorf(ErrTooLong, "hyena: %s has %d rows, more than this machine can address with Order = %d", name, tokens, op.cfg.Order)
	}
	return nil
}

// ScratchBytes returns the working memory that a call of this many tokens holds,
// beside Bytes, when every worker is busy.
func (op *Operator) ScratchBytes(tokens int) int64 {
	tokens = min(max(tokens, 0), op.maxLen)
	dim, order, rows := op.cfg.Dim, op.cfg.Order, op.blockRows()
	workers := min(parallel.Workers(op.cfg.Workers), (tokens+rows-1)/rows)
	block := min(tokens, rows) + op.taps
	edges := (tokens + rows - 1) / rows * (op.taps - 1)
	return sumBytes(floatBytes(tokens, dim, order-1), floatBytes(edges, dim), floatBytes(workers, block, dim, order+3), op.convs[0].ScratchBytes(tokens))
}
