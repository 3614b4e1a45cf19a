package approx

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// LinformerConfig fixes a Linformer.
type LinformerConfig struct {
	// Heads is H, KVHeads G a divisor of it (0 stands for Heads), HeadDim D and
	// ValueDim Dv (0 stands for HeadDim), as in package attention.
	Heads, KVHeads, HeadDim, ValueDim int
	// E is the projection of the tokens, [KVHeads*m, L]: the m rows of the first key head,
	// then those of the next. It is copied.
	E blas32.General
	// Scale multiplies q.k; 0 stands for 1/sqrt(HeadDim).
	Scale float32
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// Linformer is attention to projections of the tokens (Wang et al. 2020, arXiv 2006.04768),
// by one E [m, L] for keys and values of a head:
//
//	k'  = E k                           [m, D]
//	v'  = E v                           [m, Dv]
//	out = softmax(Scale q k'^T) v'
//
// for each head. A network must have been trained with its E, whose column j belongs to token
// j of every sequence: sequences have L keys or fewer, and those of fewer are as if they were
// filled up with padding, which counts as zeros.
//
// Projections are of all tokens, so that it is not causal and there is no State. Nor are there
// LogWeights: a merged token would need the sum of the columns of those it stands for.
//
// It costs 2 m (D + Dv) flop for each token and key head, and as much again for each query and
// head. A Linformer is immutable and safe for concurrent use.
type Linformer struct {
	cfg     LinformerConfig
	shape   shape
	rows    int                  // m
	last    *attention.Attention // to k' and v'
	scratch scratch.List[linformerRun]
}

// NewLinformer returns an operator, or an error that matches ErrConfig.
func NewLinformer(cfg LinformerConfig) (*Linformer, error) {
	sh, err := newShape(cfg.Heads, cfg.KVHeads, cfg.HeadDim, cfg.ValueDim, cfg.Workers)
	if err != nil {
		return nil, err
	}
	fail := func(format string, args ...any) (*Linformer, error) {
		return nil, check.Errorf(ErrConfig, "approx: "+format, args...)
	}
	if !finite(cfg.Scale) {
		return fail("Scale is %v, want a finite number", cfg.Scale)
	}
	if cfg.E.Rows <= 0 || cfg.E.Rows%sh.kvHeads != 0 {
		return fail("E has %d rows, want as many for each of %d key heads, 1 or more", cfg.E.Rows, sh.kvHeads)
	}
	if cfg.E, err = copyWeights("E", cfg.E, max(cfg.E.Cols, 0), "its own"); err != nil {
		return nil, err
	}
	if cfg.Scale == 0 {
		cfg.Scale = float32(1 / math.Sqrt(float64(sh.dim)))
	}
	l := &Linformer{cfg: cfg, shape: sh, rows: cfg.E.Rows / sh.kvHeads}
	l.last, err = attention.New(attention.Config{Heads: sh.heads, KVHeads: sh.kvHeads, HeadDim: sh.dim, ValueDim: sh.valueDim, Scale: cfg.Scale, Workers: cfg.Workers})
	if err != nil {
		return fail("%v", err)
	}
	if int64(l.rows)*int64(sh.kvHeads) > math.MaxInt32/64/int64(max(sh.dim, sh.valueDim)) {
		return fail("%d key heads of %d x %d are too many", sh.kvHeads, l.rows, max(sh.dim, sh.valueDim))
	}
	return l, nil
}

// copyWeights checks a matrix of a Config and returns a copy.
func copyWeights(name string, m blas32.General, cols int, what string) (blas32.General, error) {
	if err := check.Matrix(ErrConfig, "approx", name, m, -1, cols, what); err != nil {
		return m, err
	}
	own := mat.New(m.Rows, m.Cols)
	mat.Copy(own, m)
	for i, x := range own.Data {
		if !finite(x) {
			return m, check.Errorf(ErrConfig, "approx: %s[%d][%d] is %v, want a finite number", name, i/m.Cols, i%m.Cols, x)
		}
	}
	return own, nil
}

// Forward attends over one sequence: q is [queries, Heads*HeadDim], k [keys,
// KVHeads*HeadDim] of at most L keys, v [keys, KVHeads*ValueDim] and dst [queries,
// Heads*ValueDim], heads side by side. Inputs may overlap each other, dst none
// of them. After the first call of a shape nothing is allocated. Errors match ErrShape.
func (l *Linformer) Forward(dst, q, k, v blas32.General) error {
	return l.project(context.Background(), request{Dst: dst, Q: q, K: k, V: v})
}

// Run is Forward with everything optional, and an end: when ctx is done it
// returns ctx.Err() and leaves Dst in an unspecified state. Of a Call it takes K and V of
// one segment, Offsets, KOffsets, Workers and an *Options for Options; any
// other option is an error. Errors about matrices match ErrShape, those about options
// ErrCall; both come before anything is written.
func (l *Linformer) Run(ctx context.Context, call *attention.Call) error {
	var q request
	if err := q.take(ctx, call, uses&^attention.UsesLogWeights); err != nil {
		return err
	}
	return l.project(ctx, q)
}

// project runs a call.
func (l *Linformer) project(ctx context.Context, q request) error {
	r := l.scratch.Get()
	defer l.scratch.Put(r)
	return r.solve(ctx, l, q)
}

// Bytes returns the memory of the weights, E.
func (l *Linformer) Bytes() int64 { return 4 * int64(l.cfg.E.Rows) * int64(l.cfg.E.Cols) }

// ScratchBytes returns the working memory that a call of one sequence holds, at
// the most, besides its arguments.
func (l *Linformer) ScratchBytes(queries, keys int) int64 {
	s := &l.shape
	held := int64(l.cfg.E.Rows) * int64(s.dim+s.valueDim)
	each := int64(blockRows) * int64(2*max(s.dim, s.valueDim)+maxPanel)
	const rest = 1 << 14
	return 4*(held+int64(parallel.Workers(l.cfg.Workers))*each) + rest + l.last.ScratchBytes(queries, l.rows)
}
