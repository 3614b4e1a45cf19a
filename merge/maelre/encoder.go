package maelre

import (
	"context"
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/attention/approx"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/merge"
)

// Matching finds the tokens that merge: a Matcher, or something of the caller's
// that sets merge.Call.Plan from merge.Call.Metric.
type Matching interface {
	// Run sets call.Plan; it must allow calls of several goroutines at once.
	Run(ctx context.Context, call *merge.Call) error
}

// Config fixes a MAELRE encoder.
type Config struct {
	// Heads is H, a divisor of the width.
	Heads int
	// Approximation takes the place of exact attention in the layers that Approximate
	// says: self-attention, to which the sizes of merged tokens come as log-weights. Any
	// operator that honours those will do, those of package approx among them; nil is
	// approx.Efficient.
	Approximation attention.Operator
	// Approximate tells, by the number of tokens that enter a layer, whether it
	// approximates; nil says tokens > SwitchTokens.
	Approximate func(layer, tokens int) bool
	// SwitchTokens is the most tokens that are attended to exactly; 0 stands for the
	// width D, the rule of the paper.
	SwitchTokens int

	// Matching finds which tokens merge; nil is a Matcher by ToMe in preserved order.
	// A Local one with a window of 1, at a ratio of 0.5, averages neighbours.
	Matching Matching
	// Ratios is the part of the tokens of each layer that merges away, rounded down and
	// at most as many as can: one number for all layers, or one for each. nil merges
	// nothing.
	Ratios []float64
	// Schedule, if not nil, tells how many tokens merge away instead: at most as many
	// as can.
	Schedule func(layer, tokens int) int
	// Alternate begins the partition of every other layer with the second token
	// (merge.Call.Shift), so that tokens meet new neighbours.
	Alternate bool
	// MinTokens is how many tokens are left at the least.
	MinTokens int
	// IfPays merges in a layer only where that is expected to save more time in the
	// layers after it than it takes (merge.Call.Workload).
	IfPays bool

	// Eps is that of the norms; 0 stands for 1e-5.
	Eps float64
	// Format is how weights are kept in memory; 0 is Float32.
	Format asm.Format
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS. An
	// Approximation and a Matching of the caller's have their own, but Call.Workers
	// goes for all.
	Workers int
}

// Weights are the weights of an encoder of width D.
type Weights struct {
	// Blocks are those of the layers, the first first.
	Blocks []Block
	// Norm and NormBias [D] are those of the last norm.
	Norm, NormBias []float32
	// Head [classes, D] and HeadBias [classes], or nothing, make logits.
	Head     blas32.General
	HeadBias []float32
}

// Block are the weights of one block. Matrices are [out, in]; a bias may be
// nil.
type Block struct {
	Norm1, Norm1Bias []float32 // [D], before attention
	// QKV is [3 D, D]: queries, keys, values, each head after head.
	QKV     blas32.General
	QKVBias []float32
	Out     blas32.General // [D, D]
	OutBias []float32

	Norm2, Norm2Bias []float32      // [D], before the layers below
	Up               blas32.General // [hidden, D]
	UpBias           []float32
	Down             blas32.General // [D, hidden]
	DownBias         []float32
}

// Encoder is an encoder for classification that merges tokens from block to block,
// approximates attention while tokens are many and attends exactly when they are
// few:
//
//	h      = norm1(x);  q, k, v = QKV h
//	x      = x + Out attention(q, k, v, log s)     approximate while n > SwitchTokens
//	x, s   = merged by the similarity of the keys, mean over heads, weighted by s
//	x      = x + Down gelu(Up norm2(x))
//
// for each block, with s the sizes of tokens, 1 at first; and then the mean of
// norm(x) weighted by s, and logits. The GELU is the one with erf.
//
// It is a reconstruction of MAELRE (Parag and Elgammal 2025, arXiv 2507.19409),
// and no more than that: its abstract and the caption of its first figure were
// available, its method was not. From them come progressive merging inside the
// blocks and the switch from an approximation of cost O(D^2) a token to exact
// attention where n falls below D. The approximation, the matching, the schedule,
// the place of the merge between attention and the layers after it, log-sizes in
// attention and pooling by size are inferred from ToMe and its relatives, and can
// be exchanged. Nothing here speaks for that paper's results.
//
// A block costs 2 n D (4 D + 2 hidden) flop and its attention's. An Encoder is
// immutable and safe for concurrent use, if what the caller gave it is.
type Encoder struct {
	cfg     Config
	dim     int // D
	hidden  int // of the widest block
	blocks  []block
	norm    dense.Norm    // [D], the last one
	head    *dense.Linear // [classes, D], nil without one
	classes int
	exact   *attention.Attention
	scratch scratch.List[encoderRun]
}

// block is a Block, packed.
type block struct {
	norm1, norm2 dense.Norm    // [D]
	qkv, proj    *dense.Linear // [3 D, D] and [D, D]
	up, down     *dense.Linear // [hidden, D] and [D, hidden]
	hidden       int
}

// New returns an encoder, or an error that matches ErrConfig.
func New(cfg Config, w Weights) (*Encoder, error) {
	if cfg.Eps == 0 {
		cfg.Eps = 1e-5
	}
	d := len(w.Norm)
	if err := cfg.checkConfig(d, len(w.Blocks)); err != nil {
		return nil, err
	}
	if cfg.SwitchTokens == 0 {
		cfg.SwitchTokens = d
	}
	cfg.Ratios = append([]float64(nil), cfg.Ratios...)
	var err error
	if cfg.Matching == nil {
		if cfg.Matching, err = merge.New(merge.Config{Workers: cfg.Workers}); err != nil {
			return nil, err
		}
	}
	if cfg.Approximation == nil {
		if cfg.Approximation, err = approx.NewEfficient(approx.EfficientConfig{Heads: cfg.Heads, HeadDim: d / cfg.Heads, Workers: cfg.Workers}); err != nil {
			return nil, check.Errorf(ErrConfig, "maelre: %v", err)
		}
	}
	m := &Encoder{cfg: cfg, dim: d}
	if m.exact, err = attention.New(attention.Config{Heads: cfg.Heads, HeadDim: d / cfg.Heads, Workers: cfg.Workers}); err != nil {
		return nil, check.Errorf(ErrConfig, "maelre: %v", err)
	}
	p := dense.Packer{Package: "maelre", Format: cfg.Format, Eps: float32(cfg.Eps)}
	for i := range w.Blocks {
		b := &w.Blocks[i]
		p.Within = fmt.Sprintf("Blocks[%d].", i)
		m.blocks = append(m.blocks, block{
			norm1: p.Norm("Norm1", b.Norm1, b.Norm1Bias, d, true), norm2: p.Norm("Norm2", b.Norm2, b.Norm2Bias, d, true),
			qkv: p.Linear("QKV", b.QKV, b.QKVBias, 3*d, d), proj: p.Linear("Out", b.Out, b.OutBias, d, d),
			up: p.Linear("Up", b.Up, b.UpBias, b.Up.Rows, d), down: p.Linear("Down", b.Down, b.DownBias, d, b.Up.Rows),
			hidden: b.Up.Rows,
		})
		m.hidden = max(m.hidden, b.Up.Rows)
	}
	p.Within = ""
	m.norm = p.Norm("Norm", w.Norm, w.NormBias, d, true)
	if m.classes = w.Head.Rows; m.classes != 0 {
		m.head = p.Linear("Head", w.Head, w.HeadBias, m.classes, d)
	}
	if p.Err != nil {
		return nil, p.Err
	}
	return m, nil
}

// checkConfig reports what is wrong with a configuration, for blocks of width d.
func (cfg *Config) checkConfig(d, layers int) error {
	fail := func(format string, args ...any) error { return check.Errorf(ErrConfig, "maelre: "+format, args...) }
	const most = 1 << 15
	switch {
	case d < 1 || d > most:
		return fail("Norm has %d elements, want the width, 1 to %d", d, most)
	case cfg.Heads < 1 || d%cfg.Heads != 0:
		return fail("Heads is %d, want a divisor of the width = %d", cfg.Heads, d)
	case cfg.SwitchTokens < 0:
		return fail("SwitchTokens is %d, want 0 or more", cfg.SwitchTokens)
	case cfg.SwitchTokens > 0 && cfg.Approximate != nil:
		return fail("SwitchTokens together with Approximate")
	case len(cfg.Ratios) > 1 && len(cfg.Ratios) != layers:
		return fail("Ratios has %d elements, want 1 or one for each block = %d", len(cfg.Ratios), layers)
	case cfg.Ratios != nil && cfg.Schedule != nil:
		return fail("Ratios together with Schedule")
	case cfg.MinTokens < 0:
		return fail("MinTokens is %d, want 0 or more", cfg.MinTokens)
	case !(cfg.Eps > 0 && cfg.Eps <= math.MaxFloat32):
		return fail("Eps is %v, want a positive number", cfg.Eps)
	case cfg.Format > asm.Float16:
		return fail("Format is %d, want Float32, BFloat16, Int8 or Float16", uint8(cfg.Format))
	}
	if err := check.Workers(ErrConfig, "maelre", cfg.Workers); err != nil {
		return err
	}
	for i, r := range cfg.Ratios {
		if !(r >= 0 && r <= 1) {
			return fail("Ratios[%d] is %v, want 0 to 1", i, r)
		}
	}
	return nil
}

// Dim returns the width D.
func (m *Encoder) Dim() int { return m.dim }

// Classes returns how many logits the head makes, 0 without one.
func (m *Encoder) Classes() int { return m.classes }

// Layers returns the number of blocks.
func (m *Encoder) Layers() int { return len(m.blocks) }

// Bytes returns the memory of the weights.
func (m *Encoder) Bytes() int64 {
	n := int64(8 * m.dim)
	for i := range m.blocks {
		b := &m.blocks[i]
		n += int64(b.qkv.Bytes()) + int64(b.proj.Bytes()) + int64(b.up.Bytes()) + int64(b.down.Bytes()) + int64(16*m.dim)
	}
	if m.head != nil {
		n += int64(m.head.Bytes())
	}
	return n
}
