package sparse

import (
	"math"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// BlocksConfig fixes attention to chosen blocks.
type BlocksConfig struct {
	// Heads, KVHeads, HeadDim, ValueDim and Scale are those of attention.Config.
	Heads, KVHeads, HeadDim, ValueDim int
	Scale                             float32
	// Causal hides the keys after a query's own position, within chosen blocks too.
	Causal bool
	// QueryBlock is how many queries choose together, and KeyBlock how many keys are chosen
	// together; 0 stands for 128, as in PyTorch's FlexAttention. MInference has 64 of both.
	// Blocks are counted from the first query and the first key of a sequence; the last of a
	// sequence may be shorter.
	QueryBlock, KeyBlock int
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// Blocks is exact softmax attention of blocks of queries to the blocks of keys that they
// choose, for each head,
//
//	s[i][j] = Scale q[i].k[j] + w[j]                (w the log-weights)
//	out[i]  = sum over j of exp(s[i][j]) v[j] / sum over j of exp(s[i][j])
//
// where j are the keys of the blocks that a Choice names for query i's block and, with
// Causal, that are not after the query: the block-sparse attention of Child et al. 2019
// (arXiv 1904.10509), BigBird, Longformer and MInference, which differ in what they choose;
// see Pattern. Query i of a sequence is at position i + keys - queries, key j at position j,
// as in attention.Attention. A query that sees no key has 0 for its output and -Inf for its
// log-sum-exp.
//
// A Blocks is immutable and safe for concurrent use.
type Blocks struct {
	cfg     BlocksConfig
	engine  engine
	scratch scratch.List[blocksRun]
}

// NewBlocks returns an operator, or an error that matches ErrConfig.
func NewBlocks(cfg BlocksConfig) (*Blocks, error) {
	for _, x := range [...]struct {
		name string
		size *int
	}{{"QueryBlock", &cfg.QueryBlock}, {"KeyBlock", &cfg.KeyBlock}} {
		if *x.size < 0 || *x.size > maxBlock {
			return nil, check.Errorf(ErrConfig, "sparse: %s is %d, want 0 to 2^29", x.name, *x.size)
		}
		if *x.size == 0 {
			*x.size = 128
		}
	}
	att, err := attention.New(attention.Config{
		Heads: cfg.Heads, KVHeads: cfg.KVHeads, HeadDim: cfg.HeadDim, ValueDim: cfg.ValueDim, Scale: cfg.Scale, Workers: cfg.Workers,
	})
	if err != nil {
		return nil, check.Named("sparse", err)
	}
	same := att.Config() // with its checks and defaults
	cfg.KVHeads, cfg.ValueDim, cfg.Scale = same.KVHeads, same.ValueDim, same.Scale
	return &Blocks{cfg: cfg, engine: newEngine(&same, cfg.KeyBlock)}, nil
}

// maxBlock bounds sizes of blocks, so that sums fit in an int of 32 bits.
const maxBlock = 1 << 29

// Config returns the operator's configuration, with what zero values stand for.
func (b *Blocks) Config() BlocksConfig { return b.cfg }

// Bytes returns 0: the operator has neither weights nor tables. Working memory counts for
// itself.
func (b *Blocks) Bytes() int64 { return 0 }

// ScratchBytes returns the working memory that a call takes for a sequence of so many
// queries and keys, at the most, besides its arguments: that of the keys and values of some
// heads, which are packed for the kernels up to 32768 tokens at a time, or one block that is
// larger.
func (b *Blocks) ScratchBytes(queries, keys int) int64 {
	n := b.engine.waveBytes(b.cfg.Heads, b.cfg.KVHeads, queries, keys)
	const rest = 4096
	return n + int64(parallel.Workers(b.cfg.Workers))*b.engine.workerBytes(b.tileRows()) + rest
}

// tileRows is how many rows of a block of queries are done at a time: the block, or equal
// parts of it.
func (b *Blocks) tileRows() int {
	n, height := b.cfg.QueryBlock, b.engine.tile.Rows()
	parts := (n + b.engine.sizes.Rows - 1) / b.engine.sizes.Rows
	return min(n, (n+parts*height-1)/(parts*height)*height)
}

// workersFor is how many goroutines to use for work multiply-adds in a call whose Workers
// are given.
func (b *Blocks) workersFor(call int, work float64) int {
	if int64(min(work, math.MaxInt32)) <= int64(b.engine.sizes.Alone) {
		return 1
	}
	return parallel.Choose(b.cfg.Workers, call)
}
