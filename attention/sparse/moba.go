package sparse

import (
	"math"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
)

// MoBAConfig fixes a mixture of block attention.
type MoBAConfig struct {
	// Heads, KVHeads, HeadDim, ValueDim and Scale are those of attention.Config.
	Heads, KVHeads, HeadDim, ValueDim int
	Scale                             float32
	// Block is how many keys a block has; 0 stands for 4096.
	Block int
	// TopK is how many blocks a query reads at the most, its own counted; 0 stands for 12.
	TopK int
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// MoBA is mixture of block attention (Lu et al. 2025, arXiv 2502.13189), causal: each query of
// each head chooses blocks of keys by their means,
//
//	gate[i][b] = q[i] . mean of k[j] over j in block b        (no scale)
//
// namely its own block and the TopK - 1 earlier ones of the largest gates, of equal ones the
// earlier, and attends to the keys of these up to its own,
//
//	out[i] = sum over j of softmax over j (Scale q[i].k[j]) v[j]
//
// Positions are applied to q and k before. A query with no more than TopK blocks reads all:
// then it is exact attention. A gate that is NaN goes after all numbers. In a model of package
// transformer it takes the place of a layer's attention by its Replace.
//
// A MoBA is immutable and safe for concurrent use.
type MoBA struct {
	cfg     MoBAConfig
	print   state.Fingerprint    // of the states that belong to it
	one     *attention.Attention // of one head: its states hold tokens, and it takes steps of few
	engine  engine
	scratch scratch.List[mobaRun]
}

// NewMoBA returns an operator, or an error that matches ErrConfig.
func NewMoBA(cfg MoBAConfig) (*MoBA, error) {
	switch {
	case cfg.Block < 0 || cfg.Block > maxBlock:
		return nil, check.Errorf(ErrConfig, "sparse: Block is %d, want 0 to 2^29", cfg.Block)
	case cfg.TopK < 0 || cfg.TopK > maxBlocks:
		return nil, check.Errorf(ErrConfig, "sparse: TopK is %d, want 0 to 2^20", cfg.TopK)
	}
	if cfg.Block == 0 {
		cfg.Block = 4096
	}
	if cfg.TopK == 0 {
		cfg.TopK = 12
	}
	base := attention.Config{
		Heads: cfg.Heads, KVHeads: cfg.KVHeads, HeadDim: cfg.HeadDim, ValueDim: cfg.ValueDim, Scale: cfg.Scale, Causal: true, Workers: cfg.Workers,
	}
	all, err := attention.New(base)
	if err != nil {
		return nil, named(err)
	}
	same := all.Config() // with its checks and defaults
	cfg.KVHeads, cfg.ValueDim, cfg.Scale = same.KVHeads, same.ValueDim, same.Scale
	base.Heads, base.KVHeads = 1, 1
	one, err := attention.New(base)
	if err != nil {
		return nil, named(err)
	}
	m := &MoBA{cfg: cfg, one: one, engine: newEngine(&same, cfg.Block)}
	m.print = state.NewFingerprint("sparse.MoBA", m.fingerprint()...)
	return m, nil
}

// Config returns the operator's configuration, with what zero values stand for.
func (m *MoBA) Config() MoBAConfig { return m.cfg }

// Bytes returns 0: the operator has neither weights nor tables. States and working memory
// count for themselves.
func (m *MoBA) Bytes() int64 { return 0 }

// ScratchBytes returns the working memory that Forward takes for that many tokens, at the
// most, besides its arguments: packed keys and values of some heads, up to 32768 tokens or a
// larger block at a time, the blocks' means, and the choices of these heads' queries.
func (m *MoBA) ScratchBytes(tokens int) int64 {
	cfg, e := &m.cfg, &m.engine
	blocks, panel := int64(tokens)/int64(cfg.Block), int64(e.tile.Panel())
	means, lists := int64(0), int64(0)
	if blocks >= int64(cfg.TopK) { // fewer are all read
		means = (2*blocks + panel) * int64(cfg.KVHeads*cfg.HeadDim)
		lists = int64(m.together(tokens)) * int64(cfg.Heads/cfg.KVHeads) * int64(tokens) * int64(cfg.TopK-1)
	}
	rows := m.tileRows(tokens, tokens)
	worker := 2*e.workerBytes(rows) + 4*int64(rows)*min(int64(cfg.TopK)-1, blocks+1, int64(e.perRound)) + 4*min(blocks+1, int64(e.perRound)+1) + 4*int64(e.tile.Rows())*(blocks+panel) + 24*max(4*int64(cfg.TopK), 256)
	const rest = 8192
	return e.waveBytes(cfg.Heads, cfg.KVHeads, tokens, tokens) + 4*(means+lists) + int64(parallel.Workers(cfg.Workers))*worker + rest
}

// together is how many key heads a wave over that many tokens has, at the most.
func (m *MoBA) together(tokens int) int {
	var w wave
	w.open(&m.engine, m.cfg.Heads, m.cfg.KVHeads, tokens, tokens)
	return w.together
}

// tileRows is how many of so many queries of a head are done at a time: of small blocks, each
// of which few queries choose, more, so that some of them share it.
func (m *MoBA) tileRows(queries, keys int) int {
	const most = 8 // times as many
	few := 2 * m.engine.sizes.Rows
	share := keys / m.cfg.Block / m.cfg.TopK // one query in so many chooses a block
	return max(1, min(few*max(1, min(share, most)), queries))
}

// workersFor is how many goroutines to use for work multiply-adds in a call whose Workers
// are given.
func (m *MoBA) workersFor(call int, work float64) int {
	if int64(min(work, math.MaxInt32)) <= int64(m.engine.sizes.Alone) {
		return 1
	}
	return parallel.Choose(m.cfg.Workers, call)
}
