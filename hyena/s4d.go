package hyena

import (
	"context"
	"fmt"
	"io"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/pack"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
)

// S4DConfig fixes an S4D layer.
type S4DConfig struct {
	// Format is how the weights of the output are stored; 0 is Float32.
	Format asm.Format
	// SpectraBytes and Cache are those of ModalConfig.
	SpectraBytes int64
	Cache        *Cache
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
	// Scratch is the working memory to use; nil is the layer's own.
	Scratch *Scratch
}

// S4DLayerWeights are the weights of an S4D layer.
type S4DLayerWeights struct {
	Modes   *Modes         // of NewS4DModes, H channels
	Skip    []float32      // D, [H]
	Out     blas32.General // output_linear, [2 H, H]
	OutBias []float32      // [2 H], or nil
}

// S4D is the layer of a diagonal state space (Gu et al. 2022, arXiv 2206.11893), as
// state-spaces/s4 publishes it: with the kernel k of [NewS4DModes],
//
//	a, b = Out gelu(k * x + D x) + OutBias,
//	y = a sigmoid(b).
//
// It streams as its [Modal] does. An S4D is immutable and safe for concurrent use.
type S4D struct {
	cfg     S4DConfig
	modal   *Modal
	out     *dense.Linear // H -> 2 H
	kind    kind
	scratch *Scratch
}

// NewS4D returns a layer, or an error that matches ErrConfig. It keeps none of the weights'
// memory.
func NewS4D(cfg S4DConfig, w S4DLayerWeights) (*S4D, error) {
	if cfg.Format > asm.Float16 {
		return nil, check.Errorf(ErrConfig, "hyena: Format is %d, want one of the constants", cfg.Format)
	}
	if cfg.Scratch == nil {
		cfg.Scratch = new(Scratch)
	}
	modal, err := NewModal(ModalConfig{Modes: w.Modes, Skip: w.Skip, SpectraBytes: cfg.SpectraBytes, Cache: cfg.Cache, Workers: cfg.Workers, Scratch: cfg.Scratch})
	if err != nil {
		return nil, err
	}
	h := modal.Channels()
	if err := check.Matrix(ErrConfig, pkg, "Out", w.Out, 2*h, h, "channels"); err != nil {
		return nil, err
	}
	if w.OutBias != nil {
		if err := check.Vector(ErrConfig, pkg, "OutBias", w.OutBias, 2*h, "2*channels"); err != nil {
			return nil, err
		}
	}
	l := &S4D{cfg: cfg, modal: modal, out: dense.NewLinear(cfg.Format, w.Out, w.OutBias), scratch: cfg.Scratch}
	name := fmt.Sprintf("S4D of %d channels with %d modes", h, w.Modes.Modes())
	f := state.NewFingerprint(name, int64(modal.kind.hash))
	f.Add(l.out.Fingerprint())
	l.kind = kind{name: name, size: modal.kind.size, hash: uint64(f), most: mostTokens}
	return l, nil
}

// Channels returns H, the width of a token.
func (l *S4D) Channels() int { return l.modal.Channels() }

// Bytes returns the memory of the weights, and of what calls and Prepare have kept.
func (l *S4D) Bytes() int64 { return sumBytes(l.modal.Bytes(), int64(l.out.Bytes())) }

// ScratchBytes returns the working memory that a call of this many tokens holds, beside
// Bytes, when every worker is busy.
func (l *S4D) ScratchBytes(tokens int) int64 {
	tokens = min(max(tokens, 0), mostTokens)
	workers := min(parallel.Workers(l.cfg.Workers), (tokens+dense.BlockRows-1)/dense.BlockRows)
	return sumBytes(l.modal.ScratchBytes(tokens), floatBytes(tokens, l.Channels()), floatBytes(workers, min(tokens, dense.BlockRows), 2, l.Channels()))
}

// Prepare is that of the Modal convolution. Errors match ErrCall.
func (l *S4D) Prepare(ctx context.Context, tokens int) error { return l.modal.Prepare(ctx, tokens) }

// NewState returns an empty state. Errors match ErrConfig.
func (l *S4D) NewState(cfg StateConfig) (*State, error) { return l.kind.newState(cfg) }

// ReadState reads a state that WriteTo wrote of this layer, or of one with the same
// fingerprint. Errors match ErrState or are those of r.
func (l *S4D) ReadState(r io.Reader) (*State, error) { return l.kind.readState(r) }

// Forward runs a whole sequence: x and dst are [tokens, H]. dst may be x. Errors match
// ErrShape.
func (l *S4D) Forward(dst, x blas32.General) error {
	return l.Run(context.Background(), &ModalCall{Dst: dst, X: x})
}

// Step runs the next tokens, one or many, after those the state has seen. Errors match
// ErrShape, ErrState or ErrFull.
func (l *S4D) Step(dst, x blas32.General, st *State) error {
	if err := l.kind.accept("State", st); err != nil {
		return err
	}
	return l.Run(context.Background(), &ModalCall{Dst: dst, X: x, State: st})
}

// StepBatch runs one token, a row, for each of many states: Run with States. Errors match
// those of Run.
func (l *S4D) StepBatch(dst, x blas32.General, states []*State) error {
	return l.Run(context.Background(), &ModalCall{Dst: dst, X: x, States: pack.EachRow(states)})
}

// Run is Forward, Step and StepBatch with everything optional. Errors match ErrShape,
// ErrCall, ErrState or ErrFull, or are ctx.Err() once ctx is done; states are then as they
// were, and Dst is unspecified.
func (l *S4D) Run(ctx context.Context, call *ModalCall) error {
	if err := check.Call(pkg, ctx, call != nil); err != nil {
		return err
	}
	if err := check.Matrix(ErrShape, pkg, "x", call.X, -1, l.Channels(), "channels"); err != nil {
		return err
	}
	if err := check.Output(ErrShape, pkg, call.Dst, call.X.Rows, l.Channels(), "channels", call.X, true); err != nil {
		return err
	}
	workers, err := chooseWorkers(l.cfg.Workers, call.Workers)
	if err != nil {
		return err
	}
	r := l.scratch.s4ds.Get()
	defer l.scratch.s4ds.Put(r)
	inner, err := r.modal.past.begin(ctx, &l.kind, batchOf(call.X, call.Offsets, call.State, call.States))
	if err != nil {
		return err
	}
	return check.Wrap(ctx, pkg, r.modal.past.end(r.layer(inner, l, call, workers)))
}

// s4dRun is the working memory of a call of S4D.
type s4dRun struct {
	modal   modalRun
	group   parallel.Group
	l       *S4D
	dst, y  blas32.General // [tokens, H]
	yData   []float32      // of y
	workers [][]float32    // [block, 2 H]
	task    func(worker, i int)
}

func (r *s4dRun) layer(ctx context.Context, l *S4D, call *ModalCall, workers int) error {
	if r.task == nil {
		r.task = r.finishRows
	}
	rows, h := call.X.Rows, l.Channels()
	r.yData = scratch.Floats(r.yData, rows*h)
	r.l, r.dst, r.y = l, call.Dst, mat.Of(r.yData, rows, h)
	defer func() { r.l, r.dst = nil, blas32.General{} }()
	modal := ModalCall{Dst: r.y, X: call.X}
	if err := r.modal.convolve(ctx, l.modal, &modal, workers); err != nil {
		return err
	}
	for len(r.workers) < workers {
		r.workers = append(r.workers, nil)
	}
	return r.group.Run(ctx, workers, (rows+dense.BlockRows-1)/dense.BlockRows, r.task)
}

// finishRows activates, projects and gates the rows of task i.
func (r *s4dRun) finishRows(worker, i int) {
	h := r.y.Cols
	y := mat.Rows(r.y, i*dense.BlockRows, min((i+1)*dense.BlockRows, r.y.Rows))
	asm.GELU(y.Data[:y.Rows*h], y.Data[:y.Rows*h])
	r.workers[worker] = scratch.Floats(r.workers[worker], y.Rows*2*h)
	wide := mat.Of(r.workers[worker], y.Rows, 2*h)
	r.l.out.ForwardIn(&r.group, wide, y)
	for t := range y.Rows {
		row := mat.Row(wide, t)
		asm.Sigmoid(row[h:], row[h:])
		asm.Mul(mat.Row(r.dst, i*dense.BlockRows+t), row[:h], row[h:])
	}
}
