package catanet

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/scratch"
)

// GroupConfig fixes a GroupAttention.
type GroupConfig struct {
	// Heads is the number of heads, HeadDim the width of a query and a key, ValueDim
	// that of a value, 0 standing for HeadDim.
	Heads, HeadDim, ValueDim int
	// GroupSize is the number of tokens of a group.
	GroupSize int
	// Scale multiplies q.k; 0 stands for 1/sqrt(HeadDim).
	Scale float32
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// GroupAttention is attention among tokens of like content (CATANet, Liu et al. 2025):
// tokens are sorted by their bucket, as a rule the centre that each is nearest to, those
// of a bucket in their order, and cut into groups; a group's queries see the keys of their
// own group and of the next one. Where the sequence ends before the next group does, its
// last keys follow once more, in reverse order.
//
// Attention to the centres, by a softmax of its own, is added where a call has them. It
// costs 4 n GroupSize (HeadDim + ValueDim) flop a head: linear in n. An operator is
// immutable and safe for concurrent use.
type GroupAttention struct {
	cfg     GroupConfig
	core    *attention.Attention
	scratch scratch.List[groupRun]
}

// NewGroupAttention returns an operator, or an error that matches ErrConfig.
func NewGroupAttention(cfg GroupConfig) (*GroupAttention, error) {
	if cfg.GroupSize <= 0 || cfg.GroupSize > maxTokens {
		return nil, check.Errorf(ErrConfig, "catanet: GroupSize is %d, want 1 to %d", cfg.GroupSize, maxTokens)
	}
	if err := check.Workers(ErrConfig, "catanet", cfg.Workers); err != nil {
		return nil, err
	}
	if cfg.ValueDim == 0 {
		cfg.ValueDim = cfg.HeadDim
	}
	core, err := attention.New(attention.Config{Heads: cfg.Heads, HeadDim: cfg.HeadDim, ValueDim: cfg.ValueDim, Scale: cfg.Scale, Workers: cfg.Workers})
	if err != nil {
		return nil, check.Errorf(ErrConfig, "catanet: %v", err)
	}
	return &GroupAttention{cfg: cfg, core: core}, nil
}

// Forward attends over one sequence, without centres: dst [tokens, Heads*ValueDim] from q
// and k [tokens, Heads*HeadDim] and v [tokens, Heads*ValueDim], with the tokens' buckets.
// Inputs may overlap each other, dst none of them. After the first call of a shape nothing is
// allocated. Errors match ErrShape or ErrCall.
func (g *GroupAttention) Forward(dst, q, k, v blas32.General, bucket []int32) error {
	return g.Run(context.Background(), &GroupCall{Dst: dst, Q: q, K: k, V: v, Bucket: bucket})
}

// Run is Forward with everything optional. Errors match ErrShape or ErrCall and come
// before anything is written, or are ctx.Err() when ctx is done; Dst is then unspecified.
func (g *GroupAttention) Run(ctx context.Context, call *GroupCall) error {
	r := g.scratch.Get()
	defer g.scratch.Put(r)
	return r.regroup(ctx, g, call)
}

// Bytes returns 0: the operator has neither weights nor tables. Working memory counts
// for itself.
func (g *GroupAttention) Bytes() int64 { return 0 }

// ScratchBytes returns the working memory that a call of one sequence holds, at the most,
// besides its arguments.
func (g *GroupAttention) ScratchBytes(tokens, centers int) int64 { return g.held(1, tokens, centers) }

// held is ScratchBytes for several sequences of tokens each.
func (g *GroupAttention) held(sequences, tokens, centers int) int64 {
	cfg, size := &g.cfg, max(1, min(tokens, g.cfg.GroupSize))
	n, groups := int64(sequences)*int64(tokens), int64(sequences)*int64((tokens+size-1)/size)
	keys := 2 * int64(size) * groups
	qk, cols := int64(cfg.Heads)*int64(cfg.HeadDim), int64(cfg.Heads)*int64(cfg.ValueDim)
	bytes := 4*(n*(qk+2*cols)+keys*(qk+cols)) + 8*n + 4*int64(manyBuckets(tokens)) + 128*(groups+1) + 4096
	return bytes + max(inner(g.core, n, groups, 2*size), inner(g.core, n, 1, centers))
}

// inner is the working memory of exact attention of n queries, cut into sequences of
// keys keys each.
func inner(core *attention.Attention, n, sequences int64, keys int) int64 {
	const tile = 256 // attention takes keys by tiles of that many, or a few less
	tiles := int64(keys/192+1) * sequences
	const each = 1024 // what is known of a sequence
	return core.ScratchBytes(int(min(n, maxTokens)), int(min(tiles*tile, maxTokens))) + each*sequences
}
