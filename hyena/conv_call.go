package hyena

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/parallel"
)

// ConvCall is a call of Conv with everything optional.
type ConvCall struct {
	// Dst and U are [tokens, channels]; Dst may be U.
	Dst, U blas32.General
	// Workers is how many goroutines the call may use, 0 for the Config's.
	Workers int
}

// Forward convolves a whole sequence: u and dst are [tokens, channels]. dst may
// be u. The first call of a length transforms the kernels (as Prepare does), and
// later ones allocate nothing.
//
// It costs about 10 log2(tokens) flop for each token and channel and, as working
// memory, 16 bytes for each token and each of the channels done at once: up to 16
// for each worker.
func (c *Conv) Forward(dst, u blas32.General) error {
	return c.Run(context.Background(), &ConvCall{Dst: dst, U: u})
}

// Run is Forward with its options. Errors match ErrShape or ErrCall, and leave Dst as
// it is; once ctx is done Run returns ctx.Err() and leaves Dst in an unspecified state.
func (c *Conv) Run(ctx context.Context, call *ConvCall) error {
	if err := check.Call(pkg, ctx, call != nil); err != nil {
		return err
	}
	if err := check.Matrix(ErrShape, pkg, "u", call.U, -1, c.channels, "channels"); err != nil {
		return err
	}
	if err := check.Output(ErrShape, pkg, call.Dst, call.U.Rows, c.channels, "channels", call.U, true); err != nil {
		return err
	}
	workers, err := chooseWorkers(c.cfg.Workers, call.Workers)
	if err != nil {
		return err
	}
	if call.U.Rows == 0 {
		return ctx.Err()
	}
	r := c.scratch.convs.Get()
	defer c.scratch.convs.Put(r)
	return check.Wrap(ctx, pkg, r.convolveAll(ctx, c, call.Dst, call.U, workers))
}

// Prepare computes and keeps what the first call of this many tokens would: the
// transformed kernels, as far as SpectraBytes allows. Bytes counts them. Errors match
// ErrCall; once ctx is done it returns ctx.Err(), and keeps what is ready.
func (c *Conv) Prepare(ctx context.Context, tokens int) error {
	if err := checkTokens(ctx, tokens); err != nil {
		return err
	}
	if tokens == 0 {
		return ctx.Err()
	}
	r := c.scratch.convs.Get()
	defer c.scratch.convs.Put(r)
	return check.Wrap(ctx, pkg, r.prepareAll(ctx, c, tokens, parallel.Workers(c.cfg.Workers)))
}

// checkTokens checks the arguments of a Prepare.
func checkTokens(ctx context.Context, tokens int) error {
	if err := check.Call(pkg, ctx, true); err != nil {
		return err
	}
	if tokens < 0 || tokens > mostTokens {
		return check.Errorf(ErrCall, "hyena: tokens is %d, want 0 to %d", tokens, mostTokens)
	}
	return ctx.Err()
}

// ScratchBytes returns the working memory that a call of this many tokens holds,
// beside Bytes, when every worker is busy.
func (c *Conv) ScratchBytes(tokens int) int64 {
	tokens = min(max(tokens, 0), mostTokens)
	units := c.units(nil, tokens)
	workers := min(parallel.Workers(c.cfg.Workers), len(units))
	const each, sundry = 64, 1 << 10 // a unit's bookkeeping, and the rest
	held := each*int64(len(units)) + sundry
	if c.isDirect(tokens) {
		return sumBytes(held, floatBytes(workers, min(tokens, directRows+directTaps), min(directChannels, c.channels)))
	}
	n := 0
	for _, u := range units {
		n = max(n, c.planSize(tokens, u.phases))
	}
	// A worker's kernel, work, spare and spectrum, and rows copied.
	return sumBytes(held, floatBytes(workers, c.b.Lanes(), n, 1+2+2+2+1))
}
