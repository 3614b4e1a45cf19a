package approx

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// XCAConfig fixes an XCA.
type XCAConfig struct {
	// Heads is H, KVHeads G a divisor of it (0 stands for Heads) and HeadDim D, the
	// width of a value too.
	Heads, KVHeads, HeadDim int
	// Temperature multiplies the products of a head's features, [Heads]; nil is 1. It
	// is the reciprocal of the paper's tau, as in its code.
	Temperature []float32
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// XCA is cross-covariance attention (El-Nouby et al. 2021, arXiv 2106.09681): the
// features of a head attend to each other instead of its tokens,
//
//	G[a][b]   = sum over j of s[j] q[j][a] k[j][b]                         [D, D]
//	A[a]      = softmax over b of Temperature G[a][b] / (|q[:][a]| |k[:][b]|)
//	out[j][a] = sum over b of A[a][b] v[j][b]
//
// with norms over tokens, sqrt(sum over j of s[j] x[j]^2) or 1e-12 if that is
// more, and s[j] = exp(LogWeights[j]), 1 without. Queries and keys are the same
// tokens. A network must have been trained with it.
//
// A token's result depends on all tokens, so that there is no State. Padding gets
// a result of its own values.
//
// It costs 4 D^2 flop for each token and head. An XCA is immutable and safe for
// concurrent use.
type XCA struct {
	cfg  XCAConfig
	sums sums
}

// NewXCA returns an operator, or an error that matches ErrConfig.
func NewXCA(cfg XCAConfig) (*XCA, error) {
	sh, err := newShape(cfg.Heads, cfg.KVHeads, cfg.HeadDim, cfg.HeadDim, cfg.Workers)
	if err != nil {
		return nil, err
	}
	if cfg.Temperature != nil && len(cfg.Temperature) != cfg.Heads {
		return nil, check.Errorf(ErrConfig, "approx: Temperature has %d elements, want Heads = %d", len(cfg.Temperature), cfg.Heads)
	}
	for h, t := range cfg.Temperature {
		if !finite(t) {
			return nil, check.Errorf(ErrConfig, "approx: Temperature[%d] is %v, want a finite number", h, t)
		}
	}
	cfg.Temperature = append([]float32(nil), cfg.Temperature...)
	x := &XCA{cfg: cfg}
	group := sh.group()
	x.sums = sums{shape: sh, form: x, part: sh.dim * (group*(sh.dim+1) + 1), matrices: group, self: true, workers: cfg.Workers}
	return x, nil
}

// Forward attends over one sequence: q is [tokens, Heads*HeadDim], k and v
// [tokens, KVHeads*HeadDim] and dst [tokens, Heads*HeadDim], heads side by side.
// Inputs may overlap each other, dst none of them. After the first call of a
// shape nothing is allocated.
func (x *XCA) Forward(dst, q, k, v blas32.General) error {
	return x.sums.sumUp(context.Background(), request{Dst: dst, Q: q, K: k, V: v})
}

// Run is Forward with everything optional, and an end: when ctx is done it
// returns ctx.Err() and leaves Dst in an unspecified state. Of a Call it takes K and V of
// one segment, Offsets, KOffsets, LogWeights, Workers and an *Options for Options; any
// other option is an error. Errors about matrices match ErrShape, those about options
// ErrCall; both come before anything is written.
func (x *XCA) Run(ctx context.Context, call *attention.Call) error {
	var q request
	if err := q.take(ctx, call, uses); err != nil {
		return err
	}
	return x.sums.sumUp(ctx, q)
}

// ScratchBytes returns the working memory that a call of one sequence holds, at
// the most, besides its arguments.
func (x *XCA) ScratchBytes(tokens int) int64 { return x.sums.sumBytes(tokens) }

// add adds to the sums of a key head: q^T k of each of its query heads, and the
// squares of their features and of its own.
func (x *XCA) add(r *sumsRun, w *workspace, set headSet, part []float32) {
	n, d, group := len(w.rows), x.sums.dim, x.sums.group()
	if n == 0 {
		return
	}
	w.row = scratch.Floats(w.row, d)
	w.e = scratch.Floats(w.e, n*d)
	scaled := mat.Of(w.e, n, d)
	squares := func(sum []float32, m blas32.General) {
		for i := range n {
			asm.Mul(w.row, mat.Row(m, i), mat.Row(m, i))
			asm.Axpy(sum, w.scale[i], w.row)
		}
	}
	for g := set.from; g < set.to; g++ {
		own := part[g*x.sums.part:][:x.sums.part]
		if r.call.weighted() {
			asm.Exp(w.weights(r, g), w.scale)
		} else {
			w.scale = scratch.Floats(w.scale, n)
			for i := range w.scale {
				w.scale[i] = 1
			}
		}
		k := w.gathered(&w.k, r.call.K, g*d, d)
		squares(own[group*d*(d+1):], k)
		kernel.ScaleRows(scaled, w.scale, k)
		w.right.Set(scaled)
		for h := range group {
			q := w.gathered(&w.v, r.call.Q, (g*group+h)*d, d)
			kernel.GemmTAdd(mat.Of(own[h*d*(d+1):], d, d), q, &w.right)
			squares(own[h*d*(d+1)+d*d:][:d], q)
		}
	}
}

// join makes A^T of each query head.
func (x *XCA) join(r *sumsRun, w *workspace, wave, g int) {
	d, group := x.sums.dim, x.sums.group()
	w.m, w.row = scratch.Floats(w.m, x.sums.part), scratch.Floats(w.row, d)
	clear(w.m)
	first, step, count := r.partsOf(wave, g)
	for p := range count {
		asm.Add(w.m, w.m, r.parts[first+p*step:][:x.sums.part])
	}
	inverse := func(sum float32) float32 {
		return float32(1 / max(math.Sqrt(float64(sum)), 1e-12))
	}
	for b, sum := range w.m[group*d*(d+1):] {
		w.row[b] = inverse(sum)
	}
	for h := range group {
		a := mat.Of(w.m[h*d*(d+1):], d, d)
		squares := w.m[h*d*(d+1)+d*d:][:d]
		temperature := float32(1)
		if len(x.cfg.Temperature) > 0 {
			temperature = x.cfg.Temperature[g*group+h]
		}
		for i := range d {
			asm.Mul(mat.Row(a, i), mat.Row(a, i), w.row)
			asm.Scale(mat.Row(a, i), temperature*inverse(squares[i]), mat.Row(a, i))
			asm.Softmax(mat.Row(a, i), mat.Row(a, i))
		}
		r.matrix(wave, g, h).SetT(a)
	}
}

// apply multiplies values by A^T.
func (x *XCA) apply(r *sumsRun, w *workspace, wave, from, to int, set headSet) {
	d, group := x.sums.dim, x.sums.group()
	for h := set.from * group; h < set.to*group; h++ {
		v := mat.Columns(mat.Rows(r.call.V, from, to), h/group*d, d)
		kernel.Gemm(mat.Columns(mat.Rows(r.call.Dst, from, to), h*d, d), v, r.matrix(wave, h/group, h%group), nil)
	}
}
