package transformer

import (
	"slices"

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
	// Kinds has for each layer what lets its tokens look at others; nil is Attention in all.
	// Mamba or Delta are the recurrent blocks of those that have one, or nil.
	Kinds []LayerKind
	Mamba *Mamba
	Delta *Delta
	// Windows has for each layer how many tokens a query sees, its own included; 0 for all.
	Windows []int
	// Rotations has what rotates queries and keys for each layer; None where nothing does.
	Rotations []rope.Config
	// MaxPosition is max_position_embeddings, 0 where neither the file nor its model type says.
	// It is no limit.
	MaxPosition int64
	// BOS is the token that begins a text, -1 for none, EOS are those that end one: those of the
	// file, else of its model type. generation_config.json overrides them.
	BOS int32
	EOS []int32

	knobs
}

// LayerKind is what lets the tokens of a layer look at others.
type LayerKind uint8

const (
	Attention  LayerKind = iota // attention, or latent attention
	Recurrence                  // a block of Mamba, Mamba-2 or a gated delta rule
	SideBySide                  // attention and Mamba-2 of the same inputs, summed
	Alone                       // nothing: the layer is an MLP, or experts
)

// Mamba has the widths of recurrent blocks: see ssm.Mamba2Config and, where there are no
// heads, ssm.MambaConfig.
type Mamba struct {
	// Inner are the channels of a block: Heads of them, of the same width, in Groups.
	// Mamba-1 has neither.
	Inner, Heads, Groups int
	// States is N, Taps how many tokens the convolution reads, Rank that of dt in Mamba-1.
	States, Taps, Rank int

	normGroups   int // parts of a token's channels that are normalised by themselves
	noNorm       bool
	normFirst    bool // the gate comes after the norm
	dtMin, dtMax float32
}

// Delta has the widths of recurrent blocks by a gated delta rule: see
// delta.GatedDeltaConfig and, with ByChannel, delta.KDAConfig.
type Delta struct {
	// Heads is the number of value heads, KeyHeads that of key and query heads, KeyDim and
	// ValueDim their widths, Taps how many tokens the convolution reads.
	Heads, KeyHeads, KeyDim, ValueDim, Taps int
	// ByChannel says that each key channel decays by itself: Kimi Delta Attention.
	ByChannel bool

	eps      float64 // of the norm of outputs, 0 for the model's
	negative bool    // beta goes to 2
}

// Experts are MLPs of which each token takes some, by a router's scores.
type Experts struct {
	// Count is their number in a layer, TopK how many a token takes, Inner their width.
	Count, TopK, Inner int
	// Latent is the width that they read and write, of a projection of the token; 0 is Dim.
	Latent int
	// Shared is the width of an MLP that all tokens take besides, 0 for none.
	Shared int
	// Sparse tells for each layer whether it has experts; others have a dense MLP.
	Sparse []bool

	router     routing
	sharedGate bool    // what all tokens take is multiplied by a sigmoid
	interlaced bool    // gates and inputs take turns, weights are [in, out]: gpt-oss
	normalise  bool    // weights of the chosen sum to 1
	scale      float32 // of the weights, 0 for 1
	groups     int     // that experts are in, 0 for 1
	groupsUsed int
	zero       int // experts after the Count that compute nothing
}

// choices is how many experts a router chooses from.
func (e *Experts) choices() int { return e.Count + e.zero }

// routing is how scores of a router become weights of experts.
type routing uint8

const (
	softmaxFirst routing = iota // softmax over all, then the largest
	softmaxLast                 // the largest, then softmax over those: gpt-oss
	sigmoids                    // sigmoids, the largest with a correction, in the best groups: DeepSeek-V3
)

// Latent has the widths of multi-head latent attention, as mla.Config has them.
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
	outGate   bool // attention has a gate
	qkvBias   bool
	outBias   bool
	mlpBias   bool
	fused     bool // qkv_proj and gate_up_proj stand for two or three matrices
	fusedMLP  bool // gate_up_proj alone does
	plain     bool // the MLP has no gate
	squared   bool // its activation is relu(x)^2
	bare      bool // a layer is one branch: its mixer, or its MLP
	mixed     bool // norms are after attention, and before recurrent blocks
	folds     map[string]fold
	foldIn    []float32 // for z, x, B, C and dt, the outputs of in_proj, or nil
	heat      temperature
	act       dense.Activation
	limit     float32 // of the activation
	tied      bool    // the embedding is the head, too
	headless  bool    // it does not stand for a missing head either
	fp8       []int   // rows and columns of blocks with a scale each, of weights of 8 bits; 0 for all; nil for none
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

// fold are numbers that a matrix and its bias are multiplied by when they are read.
type fold struct{ weight, bias float32 }

// kind returns what lets the tokens of layer i look at others.
func (s *Shape) kind(i int) LayerKind {
	if s.Kinds == nil {
		return Attention
	}
	return s.Kinds[i]
}

// sparse tells whether layer i has experts.
func (s *Shape) sparse(i int) bool { return s.Experts != nil && s.Experts.Sparse[i] }

// recurrent tells whether a layer is, so that a state goes back to snapshots only.
func (s *Shape) recurrent() bool {
	return slices.ContainsFunc(s.Kinds, func(k LayerKind) bool { return k == Recurrence || k == SideBySide })
}
