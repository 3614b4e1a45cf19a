package layers

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// GatedConfig fixes a Gated. All but Cross and Workers are needed.
type GatedConfig struct {
	// Heads and HeadDim give D = Heads HeadDim, the width of a token.
	Heads, HeadDim int
	// ContextDim is Co, the width of a grounding token.
	ContextDim int
	// Cross makes tokens attend to the grounding tokens alone, as they are: GLIGEN's
	// gatedCA. Otherwise it is gatedSA: they attend to each other and to grounding tokens
	// that are projected and normed.
	Cross bool
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// GatedWeights are those of a Gated, matrices [out, in]; in brackets the published names.
type GatedWeights struct {
	// Context is [D, Co] with a bias [D], of grounding tokens; not with Cross [linear].
	Context     blas32.General
	ContextBias []float32
	// Norm1 is before attention, Norm2 before the feed-forward layer, [D] each; their eps is
	// 1e-5 [norm1, norm2].
	Norm1, Norm1Bias, Norm2, Norm2Bias []float32
	// Q is [D, D]; K and V are [D, D], or [D, Co] with Cross [attn.to_q, …].
	Q, K, V blas32.General
	// Out is [D, D] with a bias [D] [attn.to_out.0].
	Out     blas32.General
	OutBias []float32
	// Up is [8D, D], the values and below them the gates, with a bias [8D]
	// [ff.net.0.proj]; Down is [D, 4D] with a bias [D] [ff.net.2].
	Up, Down         blas32.General
	UpBias, DownBias []float32
	// AlphaAttention and AlphaDense are the learned gates before their tanh; with 0, where
	// training begins, the layer changes nothing [alpha_attn, alpha_dense].
	AlphaAttention, AlphaDense float32
}

// Gated is the gated self-attention of GLIGEN (Li et al. 2023, arXiv 2301.07093) and
// InteractDiffusion (2023, arXiv 2312.05849): what lets grounding tokens o (boxes, words,
// actions) steer tokens x of a network that is there already,
//
//	c  = LayerNorm([x; o Wl^T + bl])
//	x' = x  + scale tanh(alpha_attention) attention(c)[tokens of x]
//	y  = x' + scale tanh(alpha_dense) down(u gelu(g)),  u, g = up(LayerNorm(x'))
//
// Attention is full, without a mask; grounding rows that stand for nothing are learned
// nulls (see Tokens), which do take part. Queries are made of x alone.
//
// A Gated is immutable and safe for concurrent use.
type Gated struct {
	cfg               GatedConfig
	width             int // D
	context           *dense.Linear
	norm1, norm2      dense.Norm
	query, key, value *dense.Linear
	out               *dense.Linear
	mlp               dense.Gated
	attend, dense     float32 // tanh of the gates
	attention         *attention.Attention
	scratch           scratch.List[gatedRun]
}

// NewGated returns a layer, or an error that matches ErrConfig.
func NewGated(cfg GatedConfig, weights GatedWeights) (*Gated, error) {
	if err := sizes(size{"GatedConfig.Heads", cfg.Heads}, size{"GatedConfig.HeadDim", cfg.HeadDim}, size{"GatedConfig.ContextDim", cfg.ContextDim}); err != nil {
		return nil, err
	}
	if cfg.Heads > maxWidth/cfg.HeadDim {
		return nil, check.Errorf(ErrConfig, "layers: GatedConfig.Heads is %d and HeadDim %d, want a product of at most %d", cfg.Heads, cfg.HeadDim, maxWidth)
	}
	if err := check.Workers(ErrConfig, "layers", cfg.Workers); err != nil {
		return nil, err
	}
	for _, a := range []struct {
		name  string
		value float32
	}{{"AlphaAttention", weights.AlphaAttention}, {"AlphaDense", weights.AlphaDense}} {
		if a.value != a.value {
			return nil, check.Errorf(ErrConfig, "layers: GatedWeights.%s is NaN, want a number", a.name)
		}
	}
	width := cfg.Heads * cfg.HeadDim
	const normEps = 1e-5
	w := dense.Packer{Package: "layers", Eps: normEps}
	g := &Gated{cfg: cfg, width: width,
		norm1: w.Norm("Norm1", weights.Norm1, weights.Norm1Bias, width, false), norm2: w.Norm("Norm2", weights.Norm2, weights.Norm2Bias, width, false),
		attend: tanh(weights.AlphaAttention), dense: tanh(weights.AlphaDense)}
	from := width
	if cfg.Cross {
		from = cfg.ContextDim
	} else {
		g.context = w.Linear("Context", weights.Context, weights.ContextBias, width, cfg.ContextDim)
	}
	g.query, g.key, g.value = w.Linear("Q", weights.Q, nil, width, width), w.Linear("K", weights.K, nil, width, from), w.Linear("V", weights.V, nil, width, from)
	g.out = w.Linear("Out", weights.Out, weights.OutBias, width, width)
	g.mlp = dense.Gated{Up: w.Linear("Up", weights.Up, weights.UpBias, 8*width, width), Down: w.Linear("Down", weights.Down, weights.DownBias, width, 4*width), Activation: dense.GELU}
	if w.Err != nil {
		return nil, w.Err
	}
	var err error
	g.attention, err = attention.New(attention.Config{Heads: cfg.Heads, HeadDim: cfg.HeadDim, Workers: cfg.Workers})
	return g, check.Named("layers", err)
}

func tanh(x float32) float32 { return float32(math.Tanh(float64(x))) }

// GatedCall is a call of a Gated. Dst and X are needed.
type GatedCall struct {
	// Dst and X are [tokens, D]. Dst may be X, and shares no element with it otherwise, nor
	// with Objects.
	Dst, X blas32.General
	// Objects are the grounding tokens, [objects, Co]; none at all leaves plain gated
	// self-attention, or, with Cross, attention of nothing, which is Out's bias.
	Objects blas32.General
	// Grounding has the keys and values of grounding tokens in place of Objects.
	Grounding *Grounding
	// Offsets packs several sequences: sequence b has the tokens Offsets[b] to Offsets[b+1],
	// and the grounding tokens ObjectOffsets[b] to ObjectOffsets[b+1]. Both nil are one
	// sequence.
	Offsets, ObjectOffsets []int
	// Scale multiplies both gates, nil for 1. Samplers set 0 for their last steps.
	Scale *float32
	// Workers is how many goroutines the call may use; 0 stands for the Config's.
	Workers int
}

// Grounding are the keys and values of grounding tokens, which stay the same for all steps
// of a sampler. It belongs to the Gated that made it and is safe for concurrent use.
type Grounding struct {
	layer *Gated
	k, v  blas32.General // [objects, D]
}

// Ground makes the keys and values of grounding tokens objects [objects, Co], 8 D bytes for
// each. Errors match ErrShape.
func (g *Gated) Ground(objects blas32.General) (*Grounding, error) {
	if err := check.Matrix(ErrShape, "layers", "objects", objects, -1, g.cfg.ContextDim, "ContextDim"); err != nil {
		return nil, err
	}
	p := &Grounding{layer: g, k: mat.New(objects.Rows, g.width), v: mat.New(objects.Rows, g.width)}
	var work []float32
	g.ground(p.k, p.v, objects, &work)
	return p, nil
}

// ground sets k and v [objects, D].
func (g *Gated) ground(k, v, objects blas32.General, work *[]float32) {
	if objects.Rows == 0 { // of any stride
		return
	}
	if !g.cfg.Cross {
		*work = scratch.Floats(*work, objects.Rows*g.width)
		c := mat.Of(*work, objects.Rows, g.width)
		g.context.Forward(c, objects)
		g.norm1.Forward(c, c)
		objects = c
	}
	g.key.Forward(k, objects)
	g.value.Forward(v, objects)
}

// Forward sets dst from x, both [tokens, D], and objects [objects, Co], one sequence; dst may
// be x. It costs 2 D (16 D + 2 tokens + 2 objects) flop a token, and 2 D (Co + 2 D) a
// grounding token. Errors match ErrShape.
func (g *Gated) Forward(dst, x, objects blas32.General) error {
	return g.Run(context.Background(), &GatedCall{Dst: dst, X: x, Objects: objects})
}

// Run is Forward with everything optional. A done ctx ends it with ctx.Err(), and Dst
// unspecified. Errors match ErrShape or ErrCall.
func (g *Gated) Run(ctx context.Context, call *GatedCall) error {
	if err := check.Call("layers", ctx, call != nil); err != nil {
		return err
	}
	objects, err := g.checkCall(call)
	if err != nil {
		return err
	}
	r := g.scratch.Get()
	defer g.scratch.Put(r)
	return r.pass(ctx, g, call, objects)
}

// checkCall returns the number of grounding tokens.
func (g *Gated) checkCall(c *GatedCall) (objects int, err error) {
	if err := check.Matrix(ErrShape, "layers", "X", c.X, -1, g.width, "Heads HeadDim"); err != nil {
		return 0, err
	}
	if err := check.Output(ErrShape, "layers", c.Dst, c.X.Rows, g.width, "Heads HeadDim", c.X, true); err != nil {
		return 0, err
	}
	objects = c.Objects.Rows
	switch {
	case c.Grounding != nil && mat.Given(c.Objects):
		return 0, check.Errorf(ErrCall, "layers: Objects and Grounding are both given, want one")
	case c.Grounding != nil && c.Grounding.layer != g:
		return 0, check.Errorf(ErrCall, "layers: Grounding is another layer's")
	case c.Grounding != nil:
		objects = c.Grounding.k.Rows
	case mat.Given(c.Objects):
		if err := check.Matrix(ErrShape, "layers", "Objects", c.Objects, -1, g.cfg.ContextDim, "ContextDim"); err != nil {
			return 0, err
		}
		if mat.Overlap(c.Dst, c.Objects) {
			return 0, check.Errorf(ErrShape, "layers: Dst shares elements with Objects")
		}
	}
	if c.X.Rows > maxTokens || objects > maxTokens {
		return 0, check.Errorf(ErrShape, "layers: %d tokens and %d grounding tokens, want at most %d each", c.X.Rows, objects, maxTokens)
	}
	if c.Scale != nil && *c.Scale != *c.Scale {
		return 0, check.Errorf(ErrCall, "layers: Scale is NaN, want a number")
	}
	if (c.Offsets == nil) != (c.ObjectOffsets == nil) {
		return 0, check.Errorf(ErrCall, "layers: Offsets has %d elements and ObjectOffsets %d, want both or neither", len(c.Offsets), len(c.ObjectOffsets))
	}
	if c.Offsets != nil {
		if err := check.Offsets("layers", "Offsets", c.Offsets, c.X.Rows, -1); err != nil {
			return 0, err
		}
		if err := check.Offsets("layers", "ObjectOffsets", c.ObjectOffsets, objects, len(c.Offsets)-1); err != nil {
			return 0, err
		}
	}
	return objects, check.Workers(ErrCall, "layers", c.Workers)
}

// maxTokens bounds the rows of a call, so that sizes fit.
const maxTokens = 1 << 24

// Bytes returns the memory of the weights.
func (g *Gated) Bytes() int64 {
	bytes := g.norm1.Bytes() + g.norm2.Bytes() + g.mlp.Bytes()
	for _, l := range []*dense.Linear{g.context, g.query, g.key, g.value, g.out} {
		if l != nil {
			bytes += int64(l.Bytes())
		}
	}
	return bytes
}

// ScratchBytes returns the working memory that a call with so many tokens and grounding
// tokens holds, at the most, besides its arguments.
func (g *Gated) ScratchBytes(tokens, objects int) int64 {
	d, n, m := int64(g.width), int64(max(tokens, 0)), int64(max(objects, 0))
	worker := 4 * dense.BlockRows * (9*d + 64)
	return 4*(4*n+2*m)*d + int64(parallel.Workers(g.cfg.Workers))*worker + 1<<14 + g.attention.ScratchBytesWith(max(tokens, 0), max(tokens, 0), g.cfg.Heads, max(objects, 0))
}
