package approx

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/kernel"
)

// EfficientConfig fixes an Efficient.
type EfficientConfig struct {
	// Heads is H, KVHeads G a divisor of it (0 stands for Heads), HeadDim D and
	// ValueDim Dv (0 stands for HeadDim), as in package attention.
	Heads, KVHeads, HeadDim, ValueDim int
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// Efficient is efficient attention (Shen et al. 2018, arXiv 1812.01243), which
// normalises queries over their features and keys over the tokens:
//
//	P[j][d] = exp(k[j][d] + w[j]) / sum over j of exp(k[j][d] + w[j])    (w the log-weights)
//	C       = P^T V                                                     [D, Dv]
//	out[i]  = softmax(q[i]) C
//
// for each head. There is no scale. A network must have been trained with it.
//
// A query sees all tokens, so that there is no State: the next token would change
// the rows of those before it.
//
// It costs 4 D Dv flop for each token and head. An Efficient is immutable and
// safe for concurrent use.
type Efficient struct {
	cfg  EfficientConfig
	sums sums
	tile kernel.AttentionTile
}

// NewEfficient returns an operator, or an error that matches ErrConfig.
func NewEfficient(cfg EfficientConfig) (*Efficient, error) {
	sh, err := newShape(cfg.Heads, cfg.KVHeads, cfg.HeadDim, cfg.ValueDim, cfg.Workers)
	if err != nil {
		return nil, err
	}
	e := &Efficient{cfg: cfg, tile: kernel.NewAttentionTile()}
	e.sums = sums{shape: sh, form: e, width: sh.dim, part: sh.dim * (sh.valueDim + 2), matrices: 1, workers: cfg.Workers}
	return e, nil
}

// Forward attends over one sequence: q is [queries, Heads*HeadDim], k [keys,
// KVHeads*HeadDim], v [keys, KVHeads*ValueDim] and dst [queries,
// Heads*ValueDim], heads side by side. Inputs may overlap each other, dst none
// of them. After the first call of a shape nothing is allocated. Errors match ErrShape.
func (e *Efficient) Forward(dst, q, k, v blas32.General) error {
	return e.sums.sumUp(context.Background(), request{Dst: dst, Q: q, K: k, V: v})
}

// Run is Forward with everything optional, and an end: when ctx is done it
// returns ctx.Err() and leaves Dst in an unspecified state. Of a Call it takes K and V of
// one segment, Offsets, KOffsets, LogWeights, Workers and an *Options for Options; any
// other option is an error. Errors about matrices match ErrShape, those about options
// ErrCall; both come before anything is written.
func (e *Efficient) Run(ctx context.Context, call *attention.Call) error {
	var q request
	if err := q.take(ctx, call, uses); err != nil {
		return err
	}
	return e.sums.sumUp(ctx, q)
}

// Bytes returns 0: the operator has neither weights nor tables. Working memory counts
// for itself.
func (e *Efficient) Bytes() int64 { return 0 }

// ScratchBytes returns the working memory that a call of one sequence holds, at
// the most, besides its arguments.
func (e *Efficient) ScratchBytes(queries, keys int) int64 { return e.sums.sumBytes(keys) }
