package catanet

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// LRSAConfig fixes an LRSA. All numbers but Step and Workers are needed.
type LRSAConfig struct {
	// Dim is the width of a token, QKDim that of its query and key over all Heads, Inner
	// the feed-forward layer's inner width.
	Dim, QKDim, Inner, Heads int
	// Window is the side of a window, Step how far they stand apart, 0 for Window-2.
	Window, Step int
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// LRSAWeights are the weights of an LRSA, matrices [out, in] and without biases; in
// brackets a published checkpoint's names.
type LRSAWeights struct {
	// Norm and NormBias [Dim] are a layer norm before attention, with an eps of 1e-5 [layer.0.norm].
	Norm, NormBias []float32
	// Q and K are [QKDim, Dim], V and Out [Dim, Dim] [layer.0.fn.to_q, …].
	Q, K, V, Out blas32.General
	// FFN is the feed-forward layer [layer.1].
	FFN ConvFFNWeights
}

// LRSA is the local-region self-attention of CATANet: full attention in square windows
// that overlap, which are then put together, and a feed-forward layer. Where two
// consecutive windows of a row or column overlap, what they give is halved, as published;
// a pixel of three windows, at the edge, thus gets a quarter of each where the windows
// overlap twice. An LRSA is immutable and safe for concurrent use.
type LRSA struct {
	cfg         LRSAConfig
	projections projections
	ffn         convFFN
	attention   *attention.Attention
	scratch     scratch.List[lrsaRun]
}

// NewLRSA returns an operator, or an error that matches ErrConfig.
func NewLRSA(cfg LRSAConfig, weights LRSAWeights) (*LRSA, error) {
	if cfg.Step == 0 {
		cfg.Step = max(1, cfg.Window-2)
	}
	names := []string{"Dim", "QKDim", "Inner", "Heads", "Window", "Step"}
	if err := positive("LRSAConfig", names, []int{cfg.Dim, cfg.QKDim, cfg.Inner, cfg.Heads, cfg.Window, cfg.Step}); err != nil {
		return nil, err
	}
	switch {
	case cfg.QKDim%cfg.Heads != 0 || cfg.Dim%cfg.Heads != 0:
		return nil, check.Errorf(ErrConfig, "catanet: QKDim is %d and Dim %d, want multiples of Heads = %d", cfg.QKDim, cfg.Dim, cfg.Heads)
	case cfg.Step > cfg.Window:
		return nil, check.Errorf(ErrConfig, "catanet: Step is %d, want at most Window = %d", cfg.Step, cfg.Window)
	}
	if err := check.Workers(ErrConfig, "catanet", cfg.Workers); err != nil {
		return nil, err
	}
	w := dense.Packer{Package: "catanet", Eps: normEps}
	op := &LRSA{
		cfg:         cfg,
		projections: packProjections(&w, weights.Norm, weights.NormBias, weights.Q, weights.K, weights.V, weights.Out, cfg.Dim, cfg.QKDim),
		ffn:         packFFN(&w, weights.FFN, cfg.Dim, cfg.Inner),
	}
	if w.Err != nil {
		return nil, w.Err
	}
	var err error
	if op.attention, err = attention.New(attention.Config{Heads: cfg.Heads, HeadDim: cfg.QKDim / cfg.Heads, ValueDim: cfg.Dim / cfg.Heads, Workers: cfg.Workers}); err != nil {
		return nil, check.Errorf(ErrConfig, "catanet: %v", err)
	}
	return op, nil
}

// Forward sets dst from x, both [images*height*width, Dim], where dst may be x but not
// share a part with it. It costs 2 Window² (QKDim + Dim) flop a pixel for attention,
// times the overlap of windows. After the first call of a shape nothing is allocated. Errors
// match ErrShape.
func (op *LRSA) Forward(dst, x blas32.General, height, width int) error {
	return op.Run(context.Background(), &ImageCall{Dst: dst, X: x, Height: height, Width: width})
}

// Run is Forward with everything optional; its end and its errors are those of TAB.Run.
func (op *LRSA) Run(ctx context.Context, call *ImageCall) error {
	if err := call.checkImages(ctx, op.cfg.Dim); err != nil {
		return err
	}
	r := op.scratch.Get()
	defer op.scratch.Put(r)
	return r.sweep(ctx, op, call)
}

// Bytes returns the memory of the weights.
func (op *LRSA) Bytes() int64 { return op.projections.bytes() + op.ffn.bytes() }

// ScratchBytes returns the working memory that a call holds, at the
// most, besides its arguments: it grows with the overlap of windows.
func (op *LRSA) ScratchBytes(images, height, width int) int64 {
	cfg := &op.cfg
	high, wide := min(cfg.Window, height), min(cfg.Window, width)
	if images <= 0 || high <= 0 || wide <= 0 {
		return 0
	}
	rows, size := int64(images)*int64(height)*int64(width), high*wide
	windows := int64(images) * int64(windowsAlong(height, high, cfg.Step)) * int64(windowsAlong(width, wide, cfg.Step))
	pixels := windows * int64(size) * int64(2*cfg.Dim+2*cfg.QKDim)
	workers := int64(parallel.Workers(cfg.Workers))
	worker := int64(max(size*cfg.Dim, op.ffn.convFloats(width, cfg.Dim)))
	return 4*(pixels+rows*int64(cfg.Dim+cfg.Inner)+workers*worker) + 8*(windows+int64(height)+int64(width)) + 1<<14 +
		inner(op.attention, windows*int64(size), windows, size)
}
