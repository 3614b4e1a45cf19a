package hyena

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/pack"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// GatedCall is a call of Gated with everything optional.
type GatedCall struct {
	// Dst is [tokens, Dim], X the projections [tokens, 3 Dim].
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

// Forward runs a whole sequence: x is [tokens, 3 Dim], dst [tokens, Dim]; they share no
// element. It costs about 72 + 6 taps + 8 N flop for each token and channel, and allocates
// nothing after the first call. Errors match ErrShape.
func (g *Gated) Forward(dst, x blas32.General) error {
	return g.Run(context.Background(), &GatedCall{Dst: dst, X: x})
}

// Step runs the next tokens, one or many, after those the state has seen. Any split of a
// sequence gives the same bits. Errors match ErrShape, ErrState or ErrFull.
func (g *Gated) Step(dst, x blas32.General, st *State) error {
	if err := g.kind.accept("State", st); err != nil {
		return err
	}
	return g.Run(context.Background(), &GatedCall{Dst: dst, X: x, State: st})
}

// StepBatch runs one token, a row, for each of many states: Run with States. Errors match
// those of Run.
func (g *Gated) StepBatch(dst, x blas32.General, states []*State) error {
	return g.Run(context.Background(), &GatedCall{Dst: dst, X: x, States: pack.EachRow(states)})
}

// Run is Forward, Step and StepBatch with everything optional. Errors match ErrShape,
// ErrCall, ErrState or ErrFull, or are ctx.Err() once ctx is done; states are then as they
// were, and Dst is unspecified.
func (g *Gated) Run(ctx context.Context, call *GatedCall) error {
	if err := check.Call(pkg, ctx, call != nil); err != nil {
		return err
	}
	if err := check.Matrix(ErrShape, pkg, "x", call.X, -1, 3*g.cfg.Dim, "3*Dim"); err != nil {
		return err
	}
	if err := check.Output(ErrShape, pkg, call.Dst, call.X.Rows, g.cfg.Dim, "Dim", call.X, false); err != nil {
		return err
	}
	workers, err := chooseWorkers(g.cfg.Workers, call.Workers)
	if err != nil {
		return err
	}
	r := g.scratch.gated.Get()
	defer g.scratch.gated.Put(r)
	inner, err := r.past.begin(ctx, &g.kind, batchOf(call.X, call.Offsets, call.State, call.States))
	if err != nil {
		return err
	}
	return check.Wrap(ctx, pkg, r.past.end(r.gateAll(inner, g, call, workers)))
}

// gatedRun is the working memory of a call of Gated.
type gatedRun struct {
	group   parallel.Group
	past    pasts
	g       *Gated
	call    GatedCall
	workers []gatedWorker
	task    func(worker, i int)
	stopped func() bool
}

// gatedWorker is what each worker has for itself.
type gatedWorker struct {
	modal modalWorker
	z     []float32    // [taps-1+T, block], inputs of the short convolution
	x     [3][]float32 // [T, block]: x2, x1 and v
}

func (r *gatedRun) gateAll(ctx context.Context, g *Gated, call *GatedCall, workers int) error {
	if r.task == nil {
		r.task, r.stopped = r.gateBlock, r.group.Stopped
	}
	r.g, r.call = g, *call
	defer func() { r.g, r.call = nil, GatedCall{} }()
	for len(r.workers) < workers {
		r.workers = append(r.workers, gatedWorker{})
	}
	return r.group.Run(ctx, workers, len(g.blocks), r.task)
}

// gateBlock takes a block of channels through all sequences.
func (r *gatedRun) gateBlock(worker, i int) {
	g, b, w := r.g, &r.g.blocks[i], &r.workers[worker]
	for at, s := range r.past.layout.Segments {
		values, pos := r.past.values(at)
		z, dst := mat.Rows(r.call.X, s.From, s.To), mat.Columns(mat.Rows(r.call.Dst, s.From, s.To), b.from, b.n)
		for t := 0; t < z.Rows && !r.group.Stopped(); {
			n := min(modalChunk-(pos+t)%modalChunk, z.Rows-t)
			for j := range w.x {
				g.convolveShort(w, j, b, values, z, t, n)
			}
			x2, x1, v := w.x[0][:n*b.n], w.x[1][:n*b.n], w.x[2][:n*b.n]
			asm.Mul(v, v, x1)
			u, out := mat.Of(v, n, b.n), mat.Rows(dst, t, t+n)
			g.tables.advance(u, u, g.past(values), b.from, pos+t, &w.modal, r.stopped)
			for k := range n {
				asm.Mul(mat.Row(out, k), mat.Row(u, k), x2[k*b.n:][:b.n])
			}
			t += n
		}
		g.slide(b, values, z)
	}
}

// convolveShort sets x2, x1 or v of a block to the short convolution of n rows of z from t on.
func (g *Gated) convolveShort(w *gatedWorker, j int, b *gatedBlock, values []float32, z blas32.General, t, n int) {
	before := g.taps - 1
	w.z = scratch.Floats(w.z, (before+modalChunk)*b.n)
	w.x[j] = scratch.Floats(w.x[j], modalChunk*b.n)
	in := mat.Of(w.z, before+n, b.n)
	own := max(0, before-t) // rows that the state has
	mat.Copy(in, mat.Columns(mat.Rows(g.window(values), before-own, before), b.at[j], b.n))
	mat.Copy(mat.Rows(in, own, in.Rows), mat.Columns(mat.Rows(z, t-before+own, t+n), b.at[j], b.n))
	var history blas32.General
	if before > 0 {
		history = mat.Rows(in, 0, before)
	}
	var bias []float32
	if len(g.bias) > 0 {
		bias = g.bias[b.at[j]:][:b.n]
	}
	asm.DepthwiseConv(mat.Of(w.x[j], n, b.n), mat.Rows(in, before, in.Rows), mat.Columns(g.short, b.at[j], b.n), bias, history)
}

// slide brings a block's columns of the window to the last inputs.
func (g *Gated) slide(b *gatedBlock, values []float32, z blas32.General) {
	window := g.window(values)
	before := window.Rows
	kept := max(0, before-z.Rows)
	for _, at := range b.at {
		w := mat.Columns(window, at, b.n)
		for t := range kept {
			copy(mat.Row(w, t), mat.Row(w, t+before-kept))
		}
		mat.Copy(mat.Rows(w, kept, before), mat.Columns(mat.Rows(z, z.Rows-(before-kept), z.Rows), at, b.n))
	}
}
