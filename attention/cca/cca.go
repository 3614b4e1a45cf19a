package cca

import (
	"math"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
	"github.com/subquad/subquad/internal/tile"
)

// Pooling is how the tokens of a group become its core.
type Pooling int

const (
	// PoolSignificance weighs tokens by the softmax of the group's last query over
	// the group's keys: the method of the paper.
	PoolSignificance Pooling = iota
	// PoolMean takes their mean.
	PoolMean
	// PoolMax takes their largest element by element.
	PoolMax
)

// Config fixes Core-Context-Aware attention.
type Config struct {
	// Heads, KVHeads, HeadDim, ValueDim and Scale are those of attention.Config.
	Heads, KVHeads, HeadDim, ValueDim int
	Scale                             float32
	// GroupSize is g, the number of tokens pooled into a core; 0 stands for 16.
	GroupSize int
	// Window is w: a query sees w to w+g-1 tokens up to its own as they are; 0 stands
	// for 1024. The published models were trained with a multiple of GroupSize.
	Window int
	// Pooling is how groups are pooled; 0 is PoolSignificance.
	Pooling Pooling

	// Levels makes a hierarchy of cores, which is ours and not the paper's: two cores
	// of one level are pooled into a core of the next, and a query sees Span cores
	// or a few more of each level before it turns to the next. The last level covers
	// the rest. Cost falls to n (w + g log n) with Levels of 16 and more. 0 and 1
	// are the paper's method. In the softmax a core counts as many times as it has
	// cores of the first level in it.
	//
	// What that loses (TestCCALevelsError: 8192 tokens, Window 512, CountTokens, |out -
	// other| / |other|): where keys and values drift slowly, 2.6e-4 against one level
	// and against exact attention, which one level misses by 1.3e-5; where they are
	// noise, 0.7 against one level, while both miss exact attention by 1 and more.
	Levels int
	// Span is how many cores of a level a query sees at least; 0 stands for GroupSize. It
	// is not used with one level.
	Span int
	// CountTokens, which is ours and not the paper's, lets a core count in the softmax
	// as many times as it has tokens: log of their number is added to its logit. It
	// makes CCA an approximation of exact attention for models that were not trained
	// with CCA.
	CountTokens bool

	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// CCA is causal Core-Context-Aware attention (Chen et al. 2024, arXiv
// 2412.12465): groups of GroupSize tokens are pooled into core tokens,
//
//	a[p][j] = softmax over j in group p of Scale q[last of p].k[j]
//	coreK[p] = sum over j of a[p][j] k[j]
//	coreV[p] = sum over j of a[p][j] v[j]
//
// and query i sees, in one softmax, the cores of the first n[i] groups and the
// tokens from n[i]*GroupSize to its own,
//
//	n[i] = max(0, floor((i + 1 - Window) / GroupSize)),
//
// which is each token of its past once. A core belongs to a query head: its
// weights come from that head's query. Rotary positions are applied to q and k
// before.
//
// The published code's fused kernel deviates from this in rows just past the
// window and where Window is not a multiple of GroupSize, and its cache in the first
// two layers; neither is followed here.
//
// A CCA is immutable and safe for concurrent use.
type CCA struct {
	cfg     Config
	print   state.Fingerprint    // of the states that belong to it
	att     *attention.Attention // over tokens, and the cores beside them
	cores   *attention.Attention // whose states hold cores: it has their heads
	levels  []level
	stretch int   // tokens that a step takes up at a time
	alone   int64 // multiply-adds up to which one goroutine does all
	scratch scratch.List[run]
}

// level is one size of groups.
type level struct {
	size   int64   // tokens of a group
	window int64   // tokens up to a query's own that it does not see as cores of this level or a higher one
	weight float32 // added to the logits of its cores
}

// growth is how many cores make one of the next level.
const growth = 2

// New returns an operator, or an error that matches attention.ErrConfig.
func New(cfg Config) (*CCA, error) {
	fail := func(format string, args ...any) (*CCA, error) {
		return nil, check.Errorf(attention.ErrConfig, "cca: "+format, args...)
	}
	const most = 1 << 29 // so that sums fit in an int of 32 bits
	switch {
	case cfg.GroupSize < 0 || cfg.GroupSize > most:
		return fail("GroupSize is %d, want 0 to 2^29", cfg.GroupSize)
	case cfg.Window < 0 || cfg.Window > most:
		return fail("Window is %d, want 0 to 2^29", cfg.Window)
	case cfg.Pooling < PoolSignificance || cfg.Pooling > PoolMax:
		return fail("Pooling is %d, want PoolSignificance, PoolMean or PoolMax", cfg.Pooling)
	case cfg.Levels < 0 || cfg.Levels > maxLevels:
		return fail("Levels is %d, want 0 to %d", cfg.Levels, maxLevels)
	case cfg.Span < 0 || cfg.Span > most:
		return fail("Span is %d, want 0 to 2^29", cfg.Span)
	}
	or := func(x *int, def int) {
		if *x == 0 {
			*x = def
		}
	}
	or(&cfg.GroupSize, 16)
	or(&cfg.Window, 1024)
	or(&cfg.Levels, 1)
	or(&cfg.Span, cfg.GroupSize)
	att, err := attention.New(attention.Config{
		Heads: cfg.Heads, KVHeads: cfg.KVHeads, HeadDim: cfg.HeadDim, ValueDim: cfg.ValueDim, Scale: cfg.Scale,
		Causal: true, Window: cfg.Window + cfg.GroupSize - 1, Workers: cfg.Workers,
	})
	if err != nil {
		return nil, check.Named("cca", err)
	}
	inner := att.Config()
	cfg.KVHeads, cfg.ValueDim, cfg.Scale = inner.KVHeads, inner.ValueDim, inner.Scale
	inner.Window = 0
	if cfg.Pooling == PoolSignificance {
		inner.KVHeads = cfg.Heads
	}
	cores, err := attention.New(inner)
	if err != nil {
		return nil, check.Named("cca", err)
	}
	sizes := tile.New(kernel.NewAttentionTile())
	c := &CCA{cfg: cfg, att: att, cores: cores, stretch: max(sizes.Block, fewTokens), alone: int64(sizes.Alone)}
	l := level{size: int64(cfg.GroupSize), window: int64(cfg.Window)}
	for range cfg.Levels {
		count := l.size
		if !cfg.CountTokens {
			count /= int64(cfg.GroupSize)
		}
		l.weight = float32(math.Log(float64(count)))
		c.levels = append(c.levels, l)
		if l.size > attention.MaxPosition/int64(cfg.Span)/growth || l.size*int64(cfg.Span) > attention.MaxPosition-l.window {
			break // no sequence reaches the next
		}
		l.window += l.size * int64(cfg.Span)
		l.size *= growth
	}
	c.print = state.NewFingerprint("cca", c.fingerprint()...)
	return c, nil
}

const maxLevels = 32

// coreHeads is how many heads the cores have: only PoolSignificance tells query
// heads apart.
func (c *CCA) coreHeads() int {
	if c.cfg.Pooling == PoolSignificance {
		return c.cfg.Heads
	}
	return c.cfg.KVHeads
}

// CoreShape returns the shapes of the cores of a sequence of that many tokens:
// those of whole groups that some query sees as cores, at the first level. CoreK
// is [rows, kCols], CoreV [rows, vCols]. With PoolSignificance a row has Heads
// heads, otherwise KVHeads.
func (c *CCA) CoreShape(tokens int) (rows, kCols, vCols int) {
	return int(c.pooled(0, int64(tokens)-1)), c.coreHeads() * c.cfg.HeadDim, c.coreHeads() * c.cfg.ValueDim
}

// Window returns the tokens from <= j < to that the query at a position sees as
// they are, not through cores.
func (c *CCA) Window(query int64) (from, to int64) {
	return c.pooled(0, query) * c.levels[0].size, query + 1
}

// pooled returns how many groups of a level the query at a position does not see
// by anything finer.
func (c *CCA) pooled(level int, query int64) int64 {
	l := &c.levels[level]
	return max(0, (query+1-l.window)/l.size)
}

// coresOf returns the cores of a level that the query at a position sees.
func (c *CCA) coresOf(level int, query int64) (from, to int64) {
	if level+1 < len(c.levels) {
		from = c.pooled(level+1, query) * growth
	}
	return from, c.pooled(level, query)
}

// workersFor is how many goroutines to use for work multiply-adds in a call whose
// Workers are given.
func (c *CCA) workersFor(call int, work int64) int {
	if work <= c.alone {
		return 1
	}
	return parallel.Choose(c.cfg.Workers, call)
}

// Bytes returns 0: the operator has neither weights nor tables. States, pages and
// working memory count for themselves.
func (c *CCA) Bytes() int64 { return 0 }

// ScratchBytes returns the working memory that Forward takes for that many tokens,
// at the most, besides its arguments.
func (c *CCA) ScratchBytes(tokens int) int64 {
	block := int64(c.stretch)
	width := int64(c.coreHeads()) * int64(c.cfg.HeadDim+c.cfg.ValueDim)
	n := int64(0)
	var seen []int // cores of each level, by the queries of a stretch
	for l := range c.levels {
		cores := c.pooled(l, int64(tokens)-1)
		if cores == 0 {
			break
		}
		n += 4 * cores * (width + 1)
		if l+1 < len(c.levels) {
			up := &c.levels[l+1]
			cores = min(cores, (block+up.window+up.size-c.levels[l].window)/c.levels[l].size)
		}
		seen = append(seen, int(cores))
	}
	const rest = 1 << 14 // lists
	raw := min(int64(tokens), block+int64(c.cfg.Window+c.cfg.GroupSize))
	return n + c.att.ScratchBytesWith(tokens, int(raw), c.coreHeads(), seen...) + rest + 64*int64(c.cfg.GroupSize)
}
