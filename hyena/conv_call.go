package hyena

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/pack"
	"github.com/subquad/subquad/internal/parallel"
)

// ConvCall is a call of Conv with everything optional.
type ConvCall struct {
	// Dst and X are [tokens, channels]; Dst may be X.
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

// Forward convolves a whole sequence: x and dst are [tokens, channels]. dst may
// be x. The first call of a length transforms the kernels (as Prepare does), and
// later ones allocate nothing.
//
// It costs about 10 log2(n) flop for each token and channel and, as working memory, 12 n
// bytes for each of the channels done at once: up to 16 for each worker. n is about the
// number of tokens or, with kernels much shorter than that, some times their length. Errors
// match ErrShape.
func (c *Conv) Forward(dst, x blas32.General) error {
	return c.Run(context.Background(), &ConvCall{Dst: dst, X: x})
}

// Step convolves the next tokens, one or many, after those the state has seen: any split of a
// sequence gives what Forward gives, to the accuracy of Fourier convolutions, and all splits
// but a long first part (2,048 tokens or more, which is one transform) the same bits. Errors
// match ErrShape, ErrState or ErrFull.
//
// It is exact online convolution by tiles (Flash Inference, Oncescu et al. 2024, arXiv
// 2410.12982; relaxed multiplication, van der Hoeven 2002): with a kernel as long as the
// sequence, n tokens cost n log2(n)^2 and not n^2. No token waits for the work of a long
// stretch: sums over inputs more than 1,024 tokens back are begun as many tokens before they
// are needed as they are long, and done a few channels at a time. The longest wait is for one
// such piece and half of another: a vector of channels (16 with AVX-512, 8 with AVX2, 4 else)
// transformed over a block of up to half of the tokens that the kernel reaches. It grows as the
// kernel does, n log2(n), but not with the number of channels: 24 ms at 65,536 tokens on the
// reference machine, where the mean is 30 µs (64 channels). Modal takes the same time for
// every token; of a Partition, Largest bounds it.
func (c *Conv) Step(dst, x blas32.General, st *State) error {
	if err := c.kind.accept("State", st); err != nil {
		return err
	}
	return c.Run(context.Background(), &ConvCall{Dst: dst, X: x, State: st})
}

// StepBatch convolves one token, a row, for each of many states: Run with States. Errors match
// those of Run.
func (c *Conv) StepBatch(dst, x blas32.General, states []*State) error {
	return c.Run(context.Background(), &ConvCall{Dst: dst, X: x, States: pack.EachRow(states)})
}

// Run is Forward, Step and StepBatch with everything optional. Errors match ErrShape,
// ErrCall, ErrState or ErrFull, and leave Dst as it is; once ctx is done Run returns ctx.Err()
// and leaves Dst in an unspecified state, and the states as they were.
func (c *Conv) Run(ctx context.Context, call *ConvCall) error {
	if err := check.Call(pkg, ctx, call != nil); err != nil {
		return err
	}
	if err := check.Matrix(ErrShape, pkg, "x", call.X, -1, c.channels, "channels"); err != nil {
		return err
	}
	if err := check.Output(ErrShape, pkg, call.Dst, call.X.Rows, c.channels, "channels", call.X, true); err != nil {
		return err
	}
	workers, err := chooseWorkers(c.cfg.Workers, call.Workers)
	if err != nil {
		return err
	}
	r := c.scratch.convs.Get()
	defer c.scratch.convs.Put(r)
	if call.Offsets == nil && call.State == nil && call.States == nil {
		if call.X.Rows == 0 {
			return ctx.Err()
		}
		return check.Wrap(ctx, pkg, r.convolveAll(ctx, c, call.Dst, call.X, workers))
	}
	inner, err := r.past.begin(ctx, &c.kind, batchOf(call.X, call.Offsets, call.State, call.States))
	if err != nil {
		return err
	}
	return check.Wrap(ctx, pkg, r.past.end(r.convolveEach(inner, c, call, workers)))
}

// convolveEach runs the sequences of a call one after the other.
func (r *convRun) convolveEach(ctx context.Context, c *Conv, call *ConvCall, workers int) error {
	for i, g := range r.past.layout.Segments {
		if g.From == g.To {
			continue
		}
		dst, u := mat.Rows(call.Dst, g.From, g.To), mat.Rows(call.X, g.From, g.To)
		var err error
		if r.past.given() {
			err = r.past.layout.States[i].streams[0].step(ctx, r, dst, u, workers)
		} else {
			err = r.convolveAll(ctx, c, dst, u, workers)
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
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
		return sumBytes(held, floatBytes(workers, min(tokens, directRows+directTaps), min(directChannels, c.channels)), c.source.spareBytes(directTaps, c.channels, most))
	}
	tasks, n := 0, 0
	spectrum, rows := 0, 0        // of a unit, in float32 for each of n Lanes
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
		if k.count > 1 || u.channels < c.b.Lanes() {
			rows = 1
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
	workers := floatBytes(min(most, tasks), c.b.Lanes(), n, rows+2+reverse+spectrum)
	return sumBytes(held, workers, tables, edges, c.source.spareBytes(c.reach(units, tokens), c.atOnce(most), most))
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
