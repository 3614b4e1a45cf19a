package approx

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
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
	x.sums = sums{shape: sh, form: x, width: sh.dim, part: sh.dim * (group*(sh.dim+1) + 1), matrices: group, self: true, workers: cfg.Workers}
	return x, nil
}

// Forward attends over one sequence: q is [tokens, Heads*HeadDim], k and v
// [tokens, KVHeads*HeadDim] and dst [tokens, Heads*HeadDim], heads side by side.
// Inputs may overlap each other, dst none of them. After the first call of a
// shape nothing is allocated. Errors match ErrShape.
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

// Bytes returns the memory of the weights, the temperatures.
func (x *XCA) Bytes() int64 { return 4 * int64(len(x.cfg.Temperature)) }

// ScratchBytes returns the working memory that a call of one sequence holds, at
// the most, besides its arguments.
func (x *XCA) ScratchBytes(tokens int) int64 { return x.sums.sumBytes(tokens) }
