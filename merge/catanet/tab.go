package catanet

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// TABConfig fixes a TAB. All numbers but Workers are needed.
type TABConfig struct {
	// Dim is the width of a token, QKDim that of its query and key over all Heads, Inner
	// the feed-forward layer's inner width.
	Dim, QKDim, Inner, Heads int
	// Centers is how many centres there are, GroupSize how many tokens to a group.
	Centers, GroupSize int
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// TABWeights are the weights of a TAB, matrices [out, in] as PyTorch keeps them and
// without biases; in brackets a published checkpoint's names.
type TABWeights struct {
	// Norm and NormBias [Dim] are a layer norm before attention, with an eps of 1e-5 [norm].
	Norm, NormBias []float32
	// CenterK is [QKDim, Dim] and CenterV [Dim, Dim] [irca_attn.to_k, to_v].
	CenterK, CenterV blas32.General
	// Q and K are [QKDim, Dim], V and Out [Dim, Dim] [iasa_attn.to_q, …].
	Q, K, V, Out blas32.General
	// Conv is [Dim, Dim], a 1 x 1 convolution [conv1x1].
	Conv blas32.General
	// FFN is the feed-forward layer [mlp].
	FFN ConvFFNWeights
	// Means are the centres [Centers, Dim] that training left [means]. Without them, no
	// rows, centres are the means of equal stretches of the normed tokens, over all
	// sequences of a call.
	Means blas32.General
}

// TAB is the token aggregation block of CATANet (Liu et al., "CATANet: Efficient
// Content-Aware Token Aggregation for Lightweight Image Super-Resolution", 2025, arXiv
// 2503.06896):
//
//	n = norm(x); every token goes to the centre of nearest direction
//	y = x + conv(proj(GroupAttention(q, k, v of n, keys and values of the centres)))
//	dst = y + FFN(norm(y))
//
// Rows are the pixels of images, line after line; a sequence is an image of height 1. A
// TAB is immutable and safe for concurrent use.
type TAB struct {
	cfg              TABConfig
	tile             kernel.AttentionTile
	projections      projections
	centerK, centerV *dense.Linear // of a centre's key [QKDim, Dim] and value [Dim, Dim]
	conv             *dense.Linear // [Dim, Dim]
	ffn              convFFN
	attention        *GroupAttention
	centers          centers // those of the weights; none where they are made of the tokens
	scratch          scratch.List[tabRun]
}

// NewTAB returns an operator, or an error that matches ErrConfig.
func NewTAB(cfg TABConfig, weights TABWeights) (*TAB, error) {
	names := []string{"Dim", "QKDim", "Inner", "Heads", "Centers", "GroupSize"}
	if err := positive("TABConfig", names, []int{cfg.Dim, cfg.QKDim, cfg.Inner, cfg.Heads, cfg.Centers, cfg.GroupSize}); err != nil {
		return nil, err
	}
	if cfg.QKDim%cfg.Heads != 0 || cfg.Dim%cfg.Heads != 0 {
		return nil, check.Errorf(ErrConfig, "catanet: QKDim is %d and Dim %d, want multiples of Heads = %d", cfg.QKDim, cfg.Dim, cfg.Heads)
	}
	if err := check.Workers(ErrConfig, "catanet", cfg.Workers); err != nil {
		return nil, err
	}
	w := dense.Packer{Package: "catanet", Eps: normEps}
	op := &TAB{
		cfg: cfg, tile: kernel.NewAttentionTile(),
		projections: packProjections(&w, weights.Norm, weights.NormBias, weights.Q, weights.K, weights.V, weights.Out, cfg.Dim, cfg.QKDim),
		centerK:     w.Linear("CenterK", weights.CenterK, nil, cfg.QKDim, cfg.Dim),
		centerV:     w.Linear("CenterV", weights.CenterV, nil, cfg.Dim, cfg.Dim),
		conv:        w.Linear("Conv", weights.Conv, nil, cfg.Dim, cfg.Dim),
		ffn:         packFFN(&w, weights.FFN, cfg.Dim, cfg.Inner),
	}
	if weights.Means.Rows != 0 {
		w.Matrix("Means", weights.Means, cfg.Centers, cfg.Dim)
	}
	if w.Err != nil {
		return nil, w.Err
	}
	var err error
	if op.attention, err = NewGroupAttention(GroupConfig{Heads: cfg.Heads, HeadDim: cfg.QKDim / cfg.Heads, ValueDim: cfg.Dim / cfg.Heads, GroupSize: cfg.GroupSize, Workers: cfg.Workers}); err != nil {
		return nil, err
	}
	if weights.Means.Rows != 0 {
		op.centers = centers{mat.New(cfg.Centers, cfg.Dim), mat.New(cfg.Centers, cfg.QKDim), mat.New(cfg.Centers, cfg.Dim), nearest{}}
		mat.Copy(op.centers.means, weights.Means)
		op.centers.finish(op)
	}
	return op, nil
}

// Forward sets dst from x, both [images*height*width, Dim]. dst may be x, and shares no
// element with it otherwise. After the first call of a shape nothing is allocated. Errors
// match ErrShape.
func (op *TAB) Forward(dst, x blas32.General, height, width int) error {
	return op.Run(context.Background(), &ImageCall{Dst: dst, X: x, Height: height, Width: width})
}

// Run is Forward with everything optional, and an end: when ctx is done it returns
// ctx.Err(), and Dst is unspecified. Errors match ErrShape or ErrCall and come before
// anything is written.
func (op *TAB) Run(ctx context.Context, call *ImageCall) error {
	if err := call.checkImages(ctx, op.cfg.Dim); err != nil {
		return err
	}
	r := op.scratch.Get()
	defer op.scratch.Put(r)
	return r.aggregate(ctx, op, call)
}

// Bytes returns the memory of the weights, with the keys and values of the centres.
func (op *TAB) Bytes() int64 {
	c := &op.centers
	return op.projections.bytes() + op.ffn.bytes() + int64(op.centerK.Bytes()) + int64(op.centerV.Bytes()) + int64(op.conv.Bytes()) +
		4*int64(len(c.means.Data)+len(c.keys.Data)+len(c.values.Data)+len(c.nearest.panels)+len(c.nearest.unit))
}

// ScratchBytes returns the working memory that a call holds, at the
// most, besides its arguments.
func (op *TAB) ScratchBytes(images, height, width int) int64 {
	n, cfg := int64(images)*int64(height)*int64(width), &op.cfg
	tokens := n * int64(4*cfg.Dim+2*cfg.QKDim+cfg.Inner)
	centers := int64(cfg.Centers) * int64(3*cfg.Dim+cfg.QKDim)
	worker := int64(max(dense.BlockRows*cfg.Dim, op.ffn.convFloats(width, cfg.Dim)))
	return 4*(tokens+centers+worker*int64(parallel.Workers(cfg.Workers))+n) + 8*int64(images) + 1<<14 +
		op.attention.held(images, height*width, cfg.Centers)
}
