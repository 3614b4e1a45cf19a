package hyena

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/parallel"
)

// OperatorCall is a call of Operator with everything optional.
type OperatorCall struct {
	// Dst and X are [tokens, Dim]; Dst may be X.
	Dst, X blas32.General
	// Workers is how many goroutines the call may use, 0 for the Config's.
	Workers int
}

// Forward applies the operator to a whole sequence: x and dst are [tokens, Dim],
// at most MaxLen tokens. dst may be x. After the first call of a length, which computes
// the filter and its spectra (as Prepare does), it allocates nothing.
//
// It costs 2 tokens Dim^2 (Order+2) flop for the projections and the long
// convolutions' own, and Order tokens Dim float32 of working memory beside
// those of Conv.
func (op *Operator) Forward(dst, x blas32.General) error {
	return op.Run(context.Background(), &OperatorCall{Dst: dst, X: x})
}

// Run is Forward with its options. Errors match ErrShape (and ErrTooLong) or ErrCall,
// and leave Dst as it is; once ctx is done Run returns ctx.Err() and leaves Dst in an
// unspecified state.
func (op *Operator) Run(ctx context.Context, call *OperatorCall) error {
	if err := check.Call(pkg, ctx, call != nil); err != nil {
		return err
	}
	if err := check.Matrix(ErrShape, pkg, "x", call.X, -1, op.cfg.Dim, "Dim"); err != nil {
		return err
	}
	if err := op.checkLength("x", call.X.Rows); err != nil {
		return err
	}
	if err := check.Output(ErrShape, pkg, call.Dst, call.X.Rows, op.cfg.Dim, "Dim", call.X, true); err != nil {
		return err
	}
	workers, err := chooseWorkers(op.cfg.Workers, call.Workers)
	if err != nil {
		return err
	}
	if call.X.Rows == 0 {
		return ctx.Err()
	}
	r := op.scratch.operators.Get()
	defer op.scratch.operators.Put(r)
	return check.Wrap(ctx, pkg, r.apply(ctx, op, call.Dst, call.X, workers))
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
	return sumBytes(floatBytes(tokens, dim, order), floatBytes(workers, block, dim, order+3), op.convs[0].ScratchBytes(tokens))
}
