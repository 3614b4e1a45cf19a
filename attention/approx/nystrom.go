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

// NystromInit is where the iteration for the pseudo-inverse begins.
type NystromInit int

const (
	// InitExact begins with the transpose divided by the largest column sum of each
	// head of each sequence, so that sequences do not depend on each other.
	InitExact NystromInit = iota
	// InitOriginal divides by the largest of all heads of all sequences of the call,
	// as the published code does unless told otherwise: a result depends on what it
	// is computed together with.
	InitOriginal
)

// NystromConfig fixes a Nystrom.
type NystromConfig struct {
	// Heads is H, KVHeads G a divisor of it (0 stands for Heads), HeadDim D and
	// ValueDim Dv (0 stands for HeadDim), as in package attention.
	Heads, KVHeads, HeadDim, ValueDim int
	// Scale multiplies q.k; 0 stands for 1/sqrt(HeadDim).
	Scale float32
	// Landmarks is m, the number of segments whose means are landmarks; 0 stands for
	// 64. A sequence of at most that many tokens is attended to exactly.
	Landmarks int
	// Iterations are those of the pseudo-inverse; 0 stands for 6.
	Iterations int
	// Init is where they begin; 0 is InitExact.
	Init NystromInit
	// Conv, [Heads, taps] with an odd number of taps, is convolved with the values of
	// each head along the tokens, zeros beyond their ends, and added to the result:
	//
	//	sum over t of Conv[h][t] v[i + t - taps/2]
	//
	// No data is none.
	Conv blas32.General
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// Nystrom is the Nyström approximation of softmax attention (Xiong et al. 2021,
// arXiv 2102.03902): with landmarks q' and k', the means of segments of queries
// and keys,
//
//	k1  = softmax(Scale q k'^T)               [n, m]
//	k2  = softmax(Scale q' k'^T)              [m, m]
//	k3  = softmax(Scale q' k^T + w)           [m, n]   (w the log-weights)
//	out = k1 pinv(k2) (k3 v)
//
// for each head, with the pseudo-inverse by iteration,
//
//	Z = k2^T / (largest column sum of k2)
//	Z = Z/4 (13 I - k2 Z (15 I - k2 Z (7 I - k2 Z)))    Iterations times.
//
// Segments are as equal as they can be, the shorter ones first. Where tokens have
// log-weights, a landmark is the mean weighted with exp(w): tokens that are merged
// give the landmarks they gave before, which is ours and not the paper's. Padding
// (Options.Valid) counts as zeros in the means, as in the published code, and so do segments
// of which log-weights of -Inf hide all tokens. The convolution has no weights.
//
// The first and the last product are exact attention, to m keys and from m
// queries, and run on its kernel. It costs 4 m (D + Dv) flop for each token and
// head and 50 m^3 for each head.
//
// Queries and keys are the same tokens, and a query sees all of them: landmarks
// and the inverse change with every token, so that there is no State.
//
// A Nystrom is immutable and safe for concurrent use.
type Nystrom struct {
	cfg     NystromConfig
	shape   shape
	last    *attention.Attention // k3 v
	first   *attention.Attention // k1 (...)
	scratch scratch.List[nystromRun]
}

// NewNystrom returns an operator, or an error that matches ErrConfig.
func NewNystrom(cfg NystromConfig) (*Nystrom, error) {
	sh, err := newShape(cfg.Heads, cfg.KVHeads, cfg.HeadDim, cfg.ValueDim, cfg.Workers)
	if err != nil {
		return nil, err
	}
	fail := func(format string, args ...any) (*Nystrom, error) {
		return nil, check.Errorf(ErrConfig, "approx: "+format, args...)
	}
	switch {
	case !finite(cfg.Scale):
		return fail("Scale is %v, want a finite number", cfg.Scale)
	case cfg.Landmarks < 0 || cfg.Landmarks > maxLandmarks:
		return fail("Landmarks is %d, want 0 to %d", cfg.Landmarks, maxLandmarks)
	case cfg.Iterations < 0 || cfg.Iterations > 1000:
		return fail("Iterations is %d, want 0 to 1000", cfg.Iterations)
	case cfg.Init != InitExact && cfg.Init != InitOriginal:
		return fail("Init is %d, want InitExact or InitOriginal", cfg.Init)
	}
	if cfg.Conv.Rows != 0 || cfg.Conv.Data != nil {
		c := cfg.Conv
		if err := check.Matrix(ErrConfig, "approx", "Conv", c, cfg.Heads, max(c.Cols, 0), "its own"); err != nil {
			return nil, err
		}
		if c.Cols%2 == 0 {
			return fail("Conv has %d taps, want an odd number", c.Cols)
		}
		cfg.Conv = mat.Of(make([]float32, c.Rows*c.Cols), c.Rows, c.Cols)
		mat.Copy(cfg.Conv, c)
		for i, w := range cfg.Conv.Data {
			if !finite(w) {
				return fail("Conv[%d][%d] is %v, want a finite number", i/c.Cols, i%c.Cols, w)
			}
		}
	}
	if cfg.Scale == 0 {
		cfg.Scale = float32(1 / math.Sqrt(float64(sh.dim)))
	}
	if cfg.Landmarks == 0 {
		cfg.Landmarks = 64
	}
	if cfg.Iterations == 0 {
		cfg.Iterations = 6
	}
	n := &Nystrom{cfg: cfg, shape: sh}
	exact := attention.Config{Heads: sh.heads, KVHeads: sh.kvHeads, HeadDim: sh.dim, ValueDim: sh.valueDim, Scale: cfg.Scale, Workers: cfg.Workers}
	if n.last, err = attention.New(exact); err == nil {
		exact.KVHeads = sh.heads
		n.first, err = attention.New(exact)
	}
	if err != nil {
		return nil, check.Errorf(ErrConfig, "approx: %v", err)
	}
	return n, nil
}

// maxLandmarks bounds k2 and its inverse.
const maxLandmarks = 1 << 12

// Forward attends over one sequence: q is [tokens, Heads*HeadDim], k [tokens,
// KVHeads*HeadDim], v [tokens, KVHeads*ValueDim] and dst [tokens,
// Heads*ValueDim], heads side by side. Inputs may overlap each other, dst none
// of them. After the first call of a shape nothing is allocated. Errors match ErrShape.
func (n *Nystrom) Forward(dst, q, k, v blas32.General) error {
	return n.approximate(context.Background(), request{Dst: dst, Q: q, K: k, V: v})
}

// Run is Forward with everything optional, and an end: when ctx is done it
// returns ctx.Err() and leaves Dst in an unspecified state. Of a Call it takes K and V of
// one segment, Offsets, KOffsets, LogWeights, Workers and an *Options for Options; any
// other option is an error. Errors about matrices match ErrShape, those about options
// ErrCall; both come before anything is written. What stands in the rows of Dst of padding is of no use,
// but finite.
func (n *Nystrom) Run(ctx context.Context, call *attention.Call) error {
	var q request
	if err := q.take(ctx, call, uses); err != nil {
		return err
	}
	return n.approximate(ctx, q)
}

// approximate runs a call.
func (n *Nystrom) approximate(ctx context.Context, q request) error {
	r := n.scratch.Get()
	defer n.scratch.Put(r)
	return r.solve(ctx, n, q)
}

// Bytes returns the memory of the weights, those of the convolution.
func (n *Nystrom) Bytes() int64 { return 4 * int64(n.cfg.Conv.Rows) * int64(n.cfg.Conv.Cols) }

// ScratchBytes returns the working memory that a call of one sequence holds, at
// the most, besides its arguments.
func (n *Nystrom) ScratchBytes(tokens int) int64 {
	m, s := int64(min(n.cfg.Landmarks, tokens)), &n.shape
	landmarks := m * int64(s.heads) * int64(2*s.dim+2*s.valueDim)
	inverse := int64(parallel.Workers(n.cfg.Workers)) * m * (9*m + 3*maxPanel + int64(s.valueDim+s.dim+maxPanel))
	const rest = 1 << 14
	return 4*(landmarks+inverse) + rest + n.last.ScratchBytes(int(m), tokens) + n.first.ScratchBytes(tokens, int(m))
}
