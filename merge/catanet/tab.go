package catanet

import (
	"context"
	"errors"
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// TABConfig fixes a TAB. All numbers but Workers are needed.
type TABConfig struct {
	// Dim is the width of a token, QKDim that of its query and key over all Heads, MLPDim
	// the feed-forward layer's inner width.
	Dim, QKDim, MLPDim, Heads int
	// Centers is how many centres there are, GroupSize how many tokens to a group.
	Centers, GroupSize int
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// TABWeights are the weights of a TAB, matrices [out, in] as PyTorch keeps them and
// without biases; in brackets a published checkpoint's names.
type TABWeights struct {
	// Norm is before attention [norm].
	Norm NormWeights
	// CenterKey is [QKDim, Dim] and CenterValue [Dim, Dim] [irca_attn.to_k, to_v].
	CenterKey, CenterValue blas32.General
	// Query and Key are [QKDim, Dim], Value and Proj [Dim, Dim] [iasa_attn.to_q, …].
	Query, Key, Value, Proj blas32.General
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
// Rows are the pixels of images, line after line; a sequence is an image of height 1. It
// is immutable and safe for concurrent use.
type TAB struct {
	cfg               TABConfig
	tile              kernel.AttentionTile
	norm              dense.Norm
	centerK, centerV  *dense.Linear
	query, key, value *dense.Linear
	proj, conv        *dense.Linear
	ffn               convFFN
	attention         *GroupAttention
	means             blas32.General // none where they are made of the tokens
	meansK, meansV    blas32.General
	assigner          assigner // of means
	scratch           scratch.List[tabRun]
}

// NewTAB returns an operator, or an error that matches ErrConfig.
func NewTAB(cfg TABConfig, weights TABWeights) (*TAB, error) {
	if err := positive("TABConfig", []string{"Dim", "QKDim", "MLPDim", "Heads", "Centers", "GroupSize"}, []int{cfg.Dim, cfg.QKDim, cfg.MLPDim, cfg.Heads, cfg.Centers, cfg.GroupSize}, cfg.Workers); err != nil {
		return nil, err
	}
	if cfg.QKDim%cfg.Heads != 0 || cfg.Dim%cfg.Heads != 0 {
		return nil, check.Errorf(ErrConfig, "catanet: QKDim is %d and Dim %d, want multiples of Heads = %d", cfg.QKDim, cfg.Dim, cfg.Heads)
	}
	w := dense.Packer{Package: "catanet"}
	op := &TAB{
		cfg: cfg, tile: kernel.NewAttentionTile(), norm: w.Norm("Norm.", weights.Norm.Weight, weights.Norm.Bias, cfg.Dim, false),
		centerK: w.Linear("CenterKey", weights.CenterKey, nil, cfg.QKDim, cfg.Dim),
		centerV: w.Linear("CenterValue", weights.CenterValue, nil, cfg.Dim, cfg.Dim),
		query:   w.Linear("Query", weights.Query, nil, cfg.QKDim, cfg.Dim),
		key:     w.Linear("Key", weights.Key, nil, cfg.QKDim, cfg.Dim),
		value:   w.Linear("Value", weights.Value, nil, cfg.Dim, cfg.Dim),
		proj:    w.Linear("Proj", weights.Proj, nil, cfg.Dim, cfg.Dim),
		conv:    w.Linear("Conv", weights.Conv, nil, cfg.Dim, cfg.Dim),
		ffn:     packFFN(&w, weights.FFN, cfg.Dim, cfg.MLPDim),
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
		op.means = mat.New(cfg.Centers, cfg.Dim)
		for j := range cfg.Centers {
			copy(mat.Row(op.means, j), mat.Row(weights.Means, j))
		}
		op.meansK, op.meansV = mat.New(cfg.Centers, cfg.QKDim), mat.New(cfg.Centers, cfg.Dim)
		op.centerK.Forward(op.meansK, op.means)
		op.centerV.Forward(op.meansV, op.means)
		op.assigner.set(op.tile, op.means)
	}
	return op, nil
}

// maxWidth bounds the numbers of a TABConfig or LRSAConfig, so that products fit, and the
// width of a token, so that a kernel's call is short; maxTokens bounds the tokens of a
// call, so that they fit in an int32.
const (
	maxWidth  = 1 << 15
	maxTokens = math.MaxInt32 / 2
)

func positive(what string, names []string, values []int, workers int) error {
	for i, v := range values {
		if v <= 0 || v > maxWidth {
			return check.Errorf(ErrConfig, "catanet: %s.%s is %d, want 1 to %d", what, names[i], v, maxWidth)
		}
	}
	if workers < 0 {
		return check.Errorf(ErrConfig, "catanet: %s.Workers is %d, want 0 or more", what, workers)
	}
	return nil
}

// Forward sets dst from x, both [images*height*width, Dim]. dst may be x, and shares no
// element with it otherwise.
func (op *TAB) Forward(dst, x blas32.General, height, width int) error {
	return op.Run(context.Background(), &ImageCall{Dst: dst, X: x, Height: height, Width: width})
}

// ImageCall is a call of TAB or LRSA.
type ImageCall struct {
	// Dst and X are [images*Height*Width, Dim], the pixels of an image line after line.
	Dst, X        blas32.General
	Height, Width int
}

func (c *ImageCall) check(dim int) error {
	if c.Height <= 0 || c.Width <= 0 || c.Height > maxTokens/c.Width {
		return check.Errorf(ErrShape, "catanet: an image of %d x %d, want 1 or more each, and at most %d pixels", c.Height, c.Width, maxTokens)
	}
	if err := check.Matrix(ErrShape, "catanet", "x", c.X, -1, dim, "Dim"); err != nil {
		return err
	}
	if c.X.Rows%(c.Height*c.Width) != 0 || c.X.Rows > maxTokens {
		return check.Errorf(ErrShape, "catanet: x has %d rows, want a multiple of %d x %d", c.X.Rows, c.Height, c.Width)
	}
	return check.Output(ErrShape, "catanet", c.Dst, c.X.Rows, dim, "Dim", c.X, true)
}

// Run is Forward with an end: when ctx is done it returns ctx.Err(), and Dst is
// unspecified.
func (op *TAB) Run(ctx context.Context, call *ImageCall) error {
	if err := call.check(op.cfg.Dim); err != nil {
		return err
	}
	r := op.scratch.Get()
	defer op.scratch.Put(r)
	if err := r.run(ctx, op, call); err != nil {
		return fmt.Errorf("catanet: %w", err)
	}
	return nil
}

// tabRun is one call, and the memory that calls share.
type tabRun struct {
	op      *TAB
	call    ImageCall
	group   parallel.Group
	offsets []int
	bucket  []int32
	memory  []float32
	work    [][]float32 // of each worker

	n, q, k, v, mixed, y, z blas32.General
	means, meansK, meansV   blas32.General
	own                     assigner
	attend                  GroupCall

	norm, project, mix, ffn func(worker, i int)
}

func (r *tabRun) run(ctx context.Context, op *TAB, call *ImageCall) error {
	r.op, r.call = op, *call
	defer func() { r.call, r.attend = ImageCall{}, GroupCall{} }()
	if r.norm == nil {
		r.norm, r.project, r.mix, r.ffn = r.normBlock, r.projectBlock, r.mixBlock, r.ffnLine
	}
	rows, cfg := call.X.Rows, &op.cfg
	r.place(rows)
	workers := parallel.Workers(cfg.Workers)
	r.work = scratch.Sized(r.work, max(len(r.work), workers))
	blocks := (rows + dense.BlockRows - 1) / dense.BlockRows
	if err := r.group.Run(ctx, workers, blocks, r.norm); err != nil || rows == 0 {
		return err
	}
	r.centers()
	if err := r.group.Run(ctx, workers, blocks, r.project); err != nil {
		return err
	}
	r.attend = GroupCall{Dst: r.mixed, Q: r.q, K: r.k, V: r.v, Bucket: r.bucket, CenterK: r.meansK, CenterV: r.meansV, Offsets: r.offsets}
	if err := op.attention.Run(ctx, &r.attend); err != nil {
		return errors.Unwrap(err)
	}
	if err := r.group.Run(ctx, workers, blocks, r.mix); err != nil {
		return err
	}
	return r.group.Run(ctx, workers, rows/call.Width, r.ffn)
}

// place cuts the memory of a call.
func (r *tabRun) place(rows int) {
	cfg := &r.op.cfg
	r.memory = scratch.Floats(r.memory, rows*(4*cfg.Dim+2*cfg.QKDim+cfg.MLPDim)+cfg.Centers*(2*cfg.Dim+cfg.QKDim))
	rest := r.memory
	take := func(rows, cols int) blas32.General {
		m := mat.Of(rest, rows, cols)
		rest = rest[rows*cols:]
		return m
	}
	r.n, r.v, r.mixed, r.y = take(rows, cfg.Dim), take(rows, cfg.Dim), take(rows, cfg.Dim), take(rows, cfg.Dim)
	r.q, r.k, r.z = take(rows, cfg.QKDim), take(rows, cfg.QKDim), take(rows, cfg.MLPDim)
	r.means, r.meansV, r.meansK = take(cfg.Centers, cfg.Dim), take(cfg.Centers, cfg.Dim), take(cfg.Centers, cfg.QKDim)
	r.bucket, r.offsets = scratch.Sized(r.bucket, rows), r.offsets[:0]
	for at := 0; at <= rows; at += r.call.Height * r.call.Width {
		r.offsets = append(r.offsets, at)
	}
}

// block returns rows of a matrix of the call.
func (r *tabRun) block(m blas32.General, i int) blas32.General {
	return mat.Rows(m, i*dense.BlockRows, min((i+1)*dense.BlockRows, r.call.X.Rows))
}

func (r *tabRun) normBlock(_, i int) {
	r.op.norm.Forward(r.block(r.n, i), r.block(r.call.X, i), normEps)
}

// centers sets the centres, and their keys and values.
func (r *tabRun) centers() {
	op := r.op
	if op.means.Rows > 0 {
		r.meansK, r.meansV = op.meansK, op.meansV
		return
	}
	// Each of the M centres is the mean of a stretch of the tokens, which end with their
	// own tail backwards (all over again as often as need be) to make M equal stretches.
	centers, n := op.cfg.Centers, r.call.Height*r.call.Width
	images := r.call.X.Rows / n
	length := n/centers + 1
	for j := range centers {
		mean := mat.Row(r.means, j)
		clear(mean)
		for image := range images {
			for t := j * length; t < (j+1)*length; t++ {
				at := t % (2 * n)
				if at >= n {
					at = 2*n - 1 - at
				}
				asm.Add(mean, mean, mat.Row(r.n, image*n+at))
			}
		}
		asm.Scale(mean, float32(1/(float64(images)*float64(length))), mean)
	}
	op.centerK.Forward(r.meansK, r.means)
	op.centerV.Forward(r.meansV, r.means)
	r.own.set(op.tile, r.means)
}

func (r *tabRun) projectBlock(_, i int) {
	op, n := r.op, r.block(r.n, i)
	op.query.Forward(r.block(r.q, i), n)
	op.key.Forward(r.block(r.k, i), n)
	op.value.Forward(r.block(r.v, i), n)
	a := &op.assigner
	if op.means.Rows == 0 {
		a = &r.own
	}
	a.assign(r.bucket[i*dense.BlockRows:][:n.Rows], n)
}

func (r *tabRun) mixBlock(worker, i int) {
	op, x, y := r.op, r.block(r.call.X, i), r.block(r.y, i)
	w := &r.work[worker]
	*w = scratch.Floats(*w, x.Rows*x.Cols)
	projected := mat.Of(*w, x.Rows, x.Cols)
	op.proj.Forward(projected, r.block(r.mixed, i))
	op.conv.Forward(y, projected)
	for t := range y.Rows {
		asm.Add(mat.Row(y, t), mat.Row(y, t), mat.Row(x, t))
	}
	op.ffn.hidden(r.block(r.z, i), y, w)
}

func (r *tabRun) ffnLine(worker, i int) {
	h, w := r.call.Height, r.call.Width
	image, y := i/h, i%h
	at := i * w
	r.op.ffn.line(mat.Rows(r.call.Dst, at, at+w), mat.Rows(r.y, at, at+w), mat.Rows(r.z, image*h*w, (image+1)*h*w), y, h, w, &r.work[worker])
}
