package transformer

import (
	"math"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/rope"
)

// Shape is what a config.json says of a model, complete: what it leaves out is what the
// code of its model type has.
type Shape struct {
	// ModelType is model_type, of the text part where there are several.
	ModelType string
	// Dim is the width D of a token (hidden_size), Layers their number, Vocab the rows V of
	// the embedding (vocab_size), which may be more than a tokenizer has.
	Dim, Layers, Vocab int
	// Heads is the number of query heads, KVHeads that of key and value heads, HeadDim the
	// width of each; it need not be Dim/Heads. KVHeads and HeadDim mean nothing with a
	// Latent.
	Heads, KVHeads, HeadDim int
	// Inner is the width I of the dense MLPs (intermediate_size).
	Inner int
	// Experts are those of the layers that have any, Latent latent attention, or nil.
	Experts *Experts
	Latent  *Latent
	// Windows has for each layer how many tokens a query sees, its own included; 0 for all.
	Windows []int
	// Rotations has what rotates queries and keys for each layer; None where nothing does.
	Rotations []rope.Config
	// MaxPosition is max_position_embeddings, 0 if the file does not say. It is no limit.
	MaxPosition int64
	// BOS is the token that begins a text, -1 if the file does not say, EOS are those that
	// end one. generation_config.json overrides them.
	BOS int32
	EOS []int32

	knobs
}

// Experts are MLPs of which each token takes some, by a router's scores.
type Experts struct {
	// Count is their number in a layer, Used how many a token takes, Inner their width.
	Count, Used, Inner int
	// Shared is the width of an MLP that all tokens take besides, 0 for none.
	Shared int
	// Sparse tells for each layer whether it has experts; others have a dense MLP.
	Sparse []bool

	router     routing
	normalise  bool    // weights of the chosen sum to 1
	scale      float32 // of the weights, 0 for 1
	groups     int     // that experts are in, 0 for 1
	groupsUsed int
}

// routing is how scores of a router become weights of experts.
type routing uint8

const (
	softmaxFirst routing = iota // softmax over all, then the largest
	softmaxLast                 // the largest, then softmax over those: gpt-oss
	sigmoids                    // sigmoids, the largest with a correction, in the best groups: DeepSeek-V3
)

// Latent has the widths of multi-head latent attention: see mla.Config.
type Latent struct {
	QRank, KVRank, NopeDim, RopeDim, ValueDim int
}

// places say where the norms of a layer stand.
type places uint8

const (
	before     places = iota // in front of attention and MLP
	after                    // after either
	around                   // both
	sideBySide               // one in front of attention and MLP side by side
)

// norming says over what queries and keys are normed.
type norming uint8

const (
	noNorm    norming = iota
	headNorm          // each head, before it is rotated
	wholeNorm         // all heads together
	ownNorm           // each head, with weights of its own
	lateNorm          // each head, after it is rotated
)

// knobs are what else tells models apart.
type knobs struct {
	eps       float32
	layerNorm bool // norms are LayerNorm
	normBias  bool // and have a bias
	onePlus   bool // norms multiply by 1 + w
	places    places
	qkNorm    norming
	scale     float32 // of logits
	softcap   float32 // of logits of attention, 0 for none
	sinks     bool
	qkvBias   bool
	outBias   bool
	mlpBias   bool
	fused     bool // qkv_proj and gate_up_proj stand for two or three matrices
	fusedMLP  bool // gate_up_proj alone does
	plain     bool // the MLP has no gate
	heat      temperature
	act       dense.Activation
	limit     float32 // of the activation
	tied      bool    // the embedding stands for a missing head
	embScale  float32 // 0 for 1, as the others
	resScale  float32
	outScale  float32
	outCap    float32
}

// temperature multiplies a query at position p by 1 + beta ln(1 + floor(p / original)).
type temperature struct {
	beta     float64
	original int64
}

// Bytes is the memory of the weights in a format, nearly, before it is taken: the matrices
// of all layers, the embedding and a head of its own where there must be one.
func (s *Shape) Bytes(format asm.Format) int64 {
	size := map[asm.Format]float64{asm.Float32: 4, asm.BFloat16: 2, asm.Float16: 2, asm.Int8: 1}[format]
	d := float64(s.Dim)
	att := d * float64(s.HeadDim) * float64(2*s.Heads+2*s.KVHeads)
	if l := s.Latent; l != nil {
		q, in := float64(s.Heads)*float64(l.NopeDim+l.RopeDim), d
		att = 0
		if l.QRank > 0 {
			in = float64(l.QRank)
			att = d * in
		}
		att += in*q + d*float64(l.KVRank+l.RopeDim) + float64(s.Heads)*(2*float64(l.KVRank)*float64(l.NopeDim+l.ValueDim)+float64(l.ValueDim)*d)
	}
	total := float64(s.Vocab) * d
	if !s.tied {
		total *= 2
	}
	for i := range min(s.Layers, mostLayers) {
		total += att
		if e := s.Experts; e != nil && i < len(e.Sparse) && e.Sparse[i] {
			total += d * float64(e.Count+3*e.Shared+3*e.Inner*e.Count)
		} else {
			total += 3 * d * float64(s.Inner)
		}
	}
	return int64(max(0, min(total*size, math.MaxInt64/2)))
}
