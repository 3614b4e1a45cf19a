package landmark

import (
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
	"github.com/subquad/subquad/internal/tile"
	"github.com/subquad/subquad/rope"
)

// Selection is how the blocks that a query reads are chosen, by the
// softmax of its logits with the landmarks of all blocks.
type Selection int

const (
	// PerTokenAndHead lets every query and head choose its own.
	PerTokenAndHead Selection = iota
	// MaxOverHeads gives all heads of a query one choice: by the largest weight that
	// any head gives a block.
	MaxOverHeads
	// MaxOverTokens gives all queries of a step one choice in each head: by the
	// largest weight that any query gives a block.
	MaxOverTokens
)

// Config fixes Landmark attention.
type Config struct {
	// Heads, KVHeads, HeadDim, ValueDim and Scale are those of attention.Config.
	Heads, KVHeads, HeadDim, ValueDim int
	Scale                             float32
	// Rotation rotates queries and keys, which come without positions; nil if they
	// are not to be rotated. It has one axis, no learned frequencies and no xPos.
	Rotation *rope.Config
	// Block is how many tokens stand before each landmark, the mem_freq of the
	// published code; 0 stands for 50. Only Step needs it: Forward is told where
	// landmarks are.
	Block int
	// TopK is how many earlier blocks a query of Step reads; 0 stands for 4.
	TopK int
	// Selection is how they are chosen; 0 is PerTokenAndHead.
	Selection Selection
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// Landmark is causal attention with landmark tokens (Mohtashami and Jaggi 2023,
// arXiv 2305.16300): a landmark ends a block of tokens and stands for it. The
// section of a query is the tokens after the last landmark before it. In one
// softmax the query sees the tokens of its section up to its own and the
// landmarks of earlier sections; what a landmark's weight is worth is then shared
// among its block's tokens,
//
//	p = softmax over j in the section and landmarks of Scale q.k[j]
//	out = sum over j in the section of p[j] v[j] + sum over earlier blocks b of p[landmark of b] o[b]
//	o[b] = sum over j in b of softmax over b (Scale q.k[j]) v[j]
//
// Values of landmarks are not read, nor is the landmark of the query's own
// section, even where it is the query itself.
//
// Forward reads every block, as in training, and costs as much as exact
// attention. Step reads the TopK blocks whose landmarks have the most weight.
//
// A Landmark is immutable and safe for concurrent use.
type Landmark struct {
	cfg     Config
	turn    *rope.Rotation       // nil for none
	print   state.Fingerprint    // of the states that belong to it
	held    *attention.Attention // whose states hold tokens: it has their heads
	tile    kernel.AttentionTile
	sizes   tile.Sizes
	scratch scratch.List[run]
}

// New returns an operator, or an error that matches attention.ErrConfig.
func New(cfg Config) (*Landmark, error) {
	fail := func(format string, args ...any) (*Landmark, error) {
		return nil, check.Errorf(attention.ErrConfig, "landmark: "+format, args...)
	}
	const most = 1 << 20
	switch {
	case cfg.Block < 0 || cfg.Block > most:
		return fail("Block is %d, want 0 to 2^20", cfg.Block)
	case cfg.TopK < 0 || cfg.TopK > most:
		return fail("TopK is %d, want 0 to 2^20", cfg.TopK)
	case cfg.Selection < PerTokenAndHead || cfg.Selection > MaxOverTokens:
		return fail("Selection is %d, want PerTokenAndHead, MaxOverHeads or MaxOverTokens", cfg.Selection)
	}
	var turn *rope.Rotation
	if cfg.Rotation != nil {
		r, err := *cfg.Rotation, error(nil)
		cfg.Rotation = &r
		if turn, err = rope.New(r); err != nil {
			return fail("Rotation: %v", err)
		}
		switch {
		case r.HeadDim != cfg.HeadDim:
			return fail("Rotation.HeadDim is %d, want HeadDim = %d", r.HeadDim, cfg.HeadDim)
		case turn.Axes() != 1 || r.XPos != nil || r.Learned != nil:
			return fail("Rotation is %s, want one with one axis, without learned frequencies and xPos", turn)
		}
	}
	att, err := attention.New(attention.Config{
		Heads: cfg.Heads, KVHeads: cfg.KVHeads, HeadDim: cfg.HeadDim, ValueDim: cfg.ValueDim, Scale: cfg.Scale,
		Causal: true, Workers: cfg.Workers,
	})
	if err != nil {
		return nil, check.Named("landmark", err)
	}
	if cfg.Block == 0 {
		cfg.Block = 50
	}
	if cfg.TopK == 0 {
		cfg.TopK = 4
	}
	same := att.Config() // with its checks and defaults
	cfg.KVHeads, cfg.ValueDim, cfg.Scale = same.KVHeads, same.ValueDim, same.Scale
	t := kernel.NewAttentionTile()
	l := &Landmark{cfg: cfg, turn: turn, held: att, tile: t, sizes: tile.New(t)}
	l.print = state.NewFingerprint("landmark", l.fingerprint()...)
	return l, nil
}

// outCols is the width of a row of sums of values: that of whole panels.
func (l *Landmark) outCols() int { return l.tile.Panels(l.cfg.ValueDim) * l.tile.Panel() }

// scoreStride is from row to row of scores.
func (l *Landmark) scoreStride() int { return l.sizes.Keys + tile.Pad }

// period is how many positions a block and its landmark take.
func (l *Landmark) period() int { return l.cfg.Block + 1 }

// IsLandmark tells whether a landmark stands at a position where one follows
// every Block tokens, as Step needs them to.
func (l *Landmark) IsLandmark(position int64) bool {
	return position%int64(l.period()) == int64(l.cfg.Block)
}

// workersFor is how many goroutines to use for work multiply-adds in a call whose
// Workers are given.
func (l *Landmark) workersFor(call int, work int64) int {
	if work <= int64(l.sizes.Alone) {
		return 1
	}
	return parallel.Choose(l.cfg.Workers, call)
}

// Bytes returns the memory of the rotation's tables; the operator has no weights. States,
// pages and working memory count for themselves.
func (l *Landmark) Bytes() int64 {
	if l.turn == nil {
		return 0
	}
	return l.turn.Bytes()
}

// ScratchBytes returns the working memory that Forward takes for that many tokens,
// at the most, besides its arguments; where landmarks stand closer than every few
// tokens, it is more.
func (l *Landmark) ScratchBytes(tokens int) int64 {
	a := l
	panel := int64(a.tile.Panel())
	sections := int64(tokens)/int64(l.period()) + 1
	n := int64(a.cfg.KVHeads) * (int64(tokens)*int64(a.outCols()) + (int64(tokens)+sections*panel)*int64(a.cfg.HeadDim))
	if l.turn != nil {
		n += int64(tokens) * int64(a.cfg.Heads+a.cfg.KVHeads) * int64(a.cfg.HeadDim)
	}
	rows := int64(a.sizes.Rows+a.tile.Rows()) * int64(a.cfg.HeadDim+a.outCols()+5+int(panel))
	strip := int64(a.tile.Rows()) * int64(a.scoreStride()+a.outCols())
	const rest = 1 << 12
	return 4*(n+int64(parallel.Workers(a.cfg.Workers))*(rows+strip+panel*int64(a.cfg.HeadDim))) + 48*sections + rest
}
