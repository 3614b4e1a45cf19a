package catanet

import (
	"context"
	"fmt"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// LRSAConfig fixes an LRSA. All numbers but Step and Workers are needed.
type LRSAConfig struct {
	// Dim is the width of a token, QKDim that of its query and key over all Heads, MLPDim
	// the feed-forward layer's inner width.
	Dim, QKDim, MLPDim, Heads int
	// Window is the side of a window, Step how far they stand apart, 0 for Window-2.
	Window, Step int
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// LRSAWeights are the weights of an LRSA, matrices [out, in] and without biases; in
// brackets a published checkpoint's names.
type LRSAWeights struct {
	// Norm is before attention [layer.0.norm].
	Norm NormWeights
	// Query and Key are [QKDim, Dim], Value and Proj [Dim, Dim] [layer.0.fn.to_q, …].
	Query, Key, Value, Proj blas32.General
	// FFN is the feed-forward layer [layer.1].
	FFN ConvFFNWeights
}

// LRSA is the local-region self-attention of CATANet: full attention in square windows
// that overlap, which are then put together, and a feed-forward layer. Where two
// consecutive windows of a row or column overlap, what they give is halved, as published;
// a pixel of three windows, at the edge, thus gets a quarter of each where the windows
// overlap twice. It is immutable and safe for concurrent use.
type LRSA struct {
	cfg               LRSAConfig
	norm              dense.Norm
	query, key, value *dense.Linear
	proj              *dense.Linear
	ffn               convFFN
	attention         *attention.Attention
	scratch           scratch.List[lrsaRun]
}

// NewLRSA returns an operator, or an error that matches ErrConfig.
func NewLRSA(cfg LRSAConfig, weights LRSAWeights) (*LRSA, error) {
	if cfg.Step == 0 {
		cfg.Step = max(1, cfg.Window-2)
	}
	if err := positive("LRSAConfig", []string{"Dim", "QKDim", "MLPDim", "Heads", "Window", "Step"}, []int{cfg.Dim, cfg.QKDim, cfg.MLPDim, cfg.Heads, cfg.Window, cfg.Step}, cfg.Workers); err != nil {
		return nil, err
	}
	switch {
	case cfg.QKDim%cfg.Heads != 0 || cfg.Dim%cfg.Heads != 0:
		return nil, check.Errorf(ErrConfig, "catanet: QKDim is %d and Dim %d, want multiples of Heads = %d", cfg.QKDim, cfg.Dim, cfg.Heads)
	case cfg.Step > cfg.Window:
		return nil, check.Errorf(ErrConfig, "catanet: Step is %d, want at most Window = %d", cfg.Step, cfg.Window)
	}
	w := dense.Packer{Package: "catanet"}
	op := &LRSA{
		cfg: cfg, norm: w.Norm("Norm.", weights.Norm.Weight, weights.Norm.Bias, cfg.Dim, false),
		query: w.Linear("Query", weights.Query, nil, cfg.QKDim, cfg.Dim),
		key:   w.Linear("Key", weights.Key, nil, cfg.QKDim, cfg.Dim),
		value: w.Linear("Value", weights.Value, nil, cfg.Dim, cfg.Dim),
		proj:  w.Linear("Proj", weights.Proj, nil, cfg.Dim, cfg.Dim),
		ffn:   packFFN(&w, weights.FFN, cfg.Dim, cfg.MLPDim),
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

// Forward sets dst from x, both [images*height*width, Dim]. dst may be x, and shares no
// element with it otherwise. It costs 2 Window² (QKDim + Dim) flop a pixel for attention,
// times the overlap of windows.
func (op *LRSA) Forward(dst, x blas32.General, height, width int) error {
	return op.Run(context.Background(), &ImageCall{Dst: dst, X: x, Height: height, Width: width})
}

// Run is Forward with an end: when ctx is done it returns ctx.Err(), and Dst is
// unspecified.
func (op *LRSA) Run(ctx context.Context, call *ImageCall) error {
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

// lrsaRun is one call, and the memory that calls share.
type lrsaRun struct {
	op     *LRSA
	call   ImageCall
	group  parallel.Group
	memory []float32
	work   [][]float32

	down, across         []int // where windows begin
	high, wide           int   // windows' sides
	offsets              []int
	q, k, v, mixed, y, z blas32.General // but for y and z a row for each pixel of each window
	segments             [2]blas32.General
	attend               attention.Call

	project, join, ffn func(worker, i int)
}

// starts lists where windows of a side begin along n pixels: at every step, and the last
// one at the end.
func starts(list []int, n, side, step int) []int {
	list = list[:0]
	for at := 0; ; at += step {
		if at+side >= n {
			return append(list, n-side)
		}
		list = append(list, at)
	}
}

func (r *lrsaRun) run(ctx context.Context, op *LRSA, call *ImageCall) error {
	r.op, r.call = op, *call
	defer func() { r.call, r.attend, r.segments = ImageCall{}, attention.Call{}, [2]blas32.General{} }()
	if r.project == nil {
		r.project, r.join, r.ffn = r.projectWindow, r.joinLine, r.ffnLine
	}
	cfg, rows := &op.cfg, call.X.Rows
	images := rows / (call.Height * call.Width)
	r.high, r.wide = min(cfg.Window, call.Height), min(cfg.Window, call.Width)
	r.down, r.across = starts(r.down, call.Height, r.high, cfg.Step), starts(r.across, call.Width, r.wide, cfg.Step)
	windows, size := images*len(r.down)*len(r.across), r.high*r.wide
	r.memory = scratch.Floats(r.memory, windows*size*(2*cfg.Dim+2*cfg.QKDim)+rows*(cfg.Dim+cfg.MLPDim))
	rest := r.memory
	take := func(rows, cols int) blas32.General {
		m := mat.Of(rest, rows, cols)
		rest = rest[rows*cols:]
		return m
	}
	n := windows * size
	r.q, r.k, r.v, r.mixed = take(n, cfg.QKDim), take(n, cfg.QKDim), take(n, cfg.Dim), take(n, cfg.Dim)
	r.y, r.z = take(rows, cfg.Dim), take(rows, cfg.MLPDim)
	r.offsets = r.offsets[:0]
	for i := range windows + 1 {
		r.offsets = append(r.offsets, i*size)
	}
	workers := parallel.Workers(cfg.Workers)
	r.work = scratch.Sized(r.work, max(len(r.work), workers))
	if err := r.group.Run(ctx, workers, windows, r.project); err != nil || rows == 0 {
		return err
	}
	r.segments = [2]blas32.General{r.k, r.v}
	r.attend = attention.Call{Dst: r.mixed, Q: r.q, K: r.segments[:1], V: r.segments[1:], QOffsets: r.offsets}
	if err := op.attention.Run(ctx, &r.attend); err != nil {
		return err
	}
	for _, step := range [...]func(worker, i int){r.join, r.ffn} {
		if err := r.group.Run(ctx, workers, images*call.Height, step); err != nil {
			return err
		}
	}
	return nil
}

// pixel returns the row of x of a pixel of a window.
func (r *lrsaRun) pixel(window, y, x int) int {
	per := len(r.down) * len(r.across)
	image, at := window/per, window%per
	return (image*r.call.Height+r.down[at/len(r.across)]+y)*r.call.Width + r.across[at%len(r.across)] + x
}

func (r *lrsaRun) projectWindow(worker, i int) {
	op, size, w := r.op, r.high*r.wide, &r.work[worker]
	*w = scratch.Floats(*w, size*op.cfg.Dim)
	n := mat.Of(*w, size, op.cfg.Dim)
	for y := range r.high {
		op.norm.Forward(mat.Rows(n, y*r.wide, (y+1)*r.wide), mat.Rows(r.call.X, r.pixel(i, y, 0), r.pixel(i, y, 0)+r.wide), normEps)
	}
	part := func(m blas32.General) blas32.General { return mat.Rows(m, i*size, (i+1)*size) }
	op.query.Forward(part(r.q), n)
	op.key.Forward(part(r.k), n)
	op.value.Forward(part(r.v), n)
}

// joinLine puts the windows over a line together, each x + proj(attention), and begins
// the feed-forward layer.
func (r *lrsaRun) joinLine(worker, i int) {
	op, width, w := r.op, r.call.Width, &r.work[worker]
	image, y := i/r.call.Height, i%r.call.Height
	x, sum := mat.Rows(r.call.X, i*width, (i+1)*width), mat.Rows(r.y, i*width, (i+1)*width)
	for t := range sum.Rows {
		clear(mat.Row(sum, t))
	}
	*w = scratch.Floats(*w, r.wide*op.cfg.Dim)
	projected := mat.Of(*w, r.wide, op.cfg.Dim)
	for d, top := range r.down {
		if y < top || y >= top+r.high {
			continue
		}
		for a, left := range r.across {
			window := (image*len(r.down)+d)*len(r.across) + a
			from := (window*r.high + y - top) * r.wide
			op.proj.Forward(projected, mat.Rows(r.mixed, from, from+r.wide))
			for t := range r.wide {
				s := mat.Row(sum, left+t)
				asm.Add(s, s, mat.Row(projected, t))
				asm.Add(s, s, mat.Row(x, left+t))
			}
		}
	}
	scale := halves(r.down, r.high, y)
	for t := range sum.Rows {
		s := mat.Row(sum, t)
		asm.Scale(s, scale*halves(r.across, r.wide, t), s)
	}
	op.ffn.hidden(mat.Rows(r.z, i*width, (i+1)*width), sum, w)
}

// halves is 1/2 for every pair of consecutive windows that overlap at a place.
func halves(starts []int, side, at int) float32 {
	scale := float32(1)
	for i := 1; i < len(starts); i++ {
		if at >= starts[i] && at < starts[i-1]+side {
			scale /= 2
		}
	}
	return scale
}

func (r *lrsaRun) ffnLine(worker, i int) {
	h, w := r.call.Height, r.call.Width
	image, at := i/h, i*w
	r.op.ffn.line(mat.Rows(r.call.Dst, at, at+w), mat.Rows(r.y, at, at+w), mat.Rows(r.z, image*h*w, (image+1)*h*w), i%h, h, w, &r.work[worker])
}
