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
// It costs about 10 log2(n) flop for each token and channel and, as working memory, 12 n
// bytes for each of the channels done at once: up to 16 for each worker. n is about the
// number of tokens or, with kernels much shorter than that, some times their length.
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
	most := parallel.Workers(c.cfg.Workers)
	const each, sundry = 64, 1 << 10 // a unit's bookkeeping, and the rest
	held := each*int64(len(units)) + sundry
	if c.isDirect(tokens) {
		workers := min(most, len(units))
		return sumBytes(held, floatBytes(workers, min(tokens, directRows+directTaps), min(directChannels, c.channels)), c.source.spareBytes(directTaps))
	}
	tasks, n := 0, 0
	spectrum := 0                 // of a unit, in float32 for each of n Lanes
	var edges, kept, tables int64 // bytes
	for _, u := range units {
		k := c.cutOf(tokens, u.phases)
		parts := c.parts(k, len(units), most)
		tasks += parts
		if k.count > 1 { // and what workers keep of inputs after a window
			edges = sumBytes(edges, floatBytes(min(most, parts), k.after, u.channels))
		}
		if parts > 1 {
			edges = sumBytes(edges, floatBytes(parts-1, k.before+k.after, u.channels))
		}
		size := 2
		if u.phases {
			size = 4
		}
		if k.n > n {
			tables = sumBytes(tables, floatBytes(k.n, 3)) // of a plan, which may not be kept
		}
		kept, n, spectrum = sumBytes(kept, floatBytes(size, k.n, c.b.Lanes())), max(n, k.n), max(spectrum, size)
	}
	if c.alone && kept <= c.cache.most {
		spectrum = 0 // there is room for all that are of one size
	}
	reverse := 0
	if c.cfg.Reverse.Rows > 0 {
		reverse = 2
	}
	// A worker's rows, its work, the transform of a second kernel, and a spectrum.
	workers := floatBytes(min(most, tasks), c.b.Lanes(), n, 1+2+reverse+spectrum)
	return sumBytes(held, workers, tables, edges, c.source.spareBytes(c.reach(units, tokens)))
}

// reach returns how many taps a call of this many tokens transforms.
func (c *Conv) reach(units []unit, tokens int) int {
	taps := directTaps
	for _, u := range units {
		if !c.isDirect(tokens) {
			taps = max(taps, c.cutOf(tokens, u.phases).window)
		}
	}
	return taps
}
