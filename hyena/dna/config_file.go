package dna

import (
	"cmp"
	"errors"
	"math"

	"github.com/subquad/subquad/hyena"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/internal/weights"
)

// ParseConfig reads a config.json, under the names of hyena-dna, of the Hugging Face port
// or of MultiMolecule. What it says of the operators is read or, where this package
// computes one value only, an error that matches ErrConfig and names the key (bidirectional
// filters, more than one head or block, outer_mixing, post_order_ffn, filters without a
// bias, layers of attention, learned positions), and so is a model_type that is another
// model's. Keys that do not change inference (of training, of dropout, of fused kernels),
// and those that the tensors tell (filter_order, short_filter_order, num_inner_mlps), are
// passed over.
func ParseConfig(text []byte) (Config, error) {
	keys, err := weights.ReadKeys(text)
	if err == nil {
		err = checkKeys(keys)
	}
	var f configFile
	if err == nil {
		err = weights.DecodeConfig(text, &f)
	}
	if err != nil {
		return Config{}, check.Errorf(ErrConfig, "dna: config.json: %v", err)
	}
	activation, known := activations[f.Layer.Activation]
	if !known {
		return Config{}, check.Errorf(ErrConfig, "dna: config.json: layer.activation is %q, want id, tanh, relu, sqrelu, gelu, silu, sigmoid or softplus", f.Layer.Activation)
	}
	c := Config{
		Dim: cmp.Or(f.DModel, f.HiddenSize), Layers: cmp.Or(f.NLayer, f.NumHiddenLayers), Inner: cmp.Or(f.DInner, f.IntermediateSize),
		MaxLen: cmp.Or(f.Layer.LMax, f.MaxSeqLen, f.MaxPositions), Order: cmp.Or(f.Layer.Order, f.HyenaOrder),
		EmbDim: cmp.Or(f.Layer.EmbDim, f.EmbDim, f.FilterEmbDim),
		Shift:  f.Layer.Shift, Freq: cmp.Or(f.Layer.W, f.ActivationFreq), Eps: cmp.Or(f.Epsilon, f.NormEps),
		FastDecay: f.Layer.FastDecay, SlowDecay: f.Layer.SlowDecay, Target: f.Layer.Target,
		Normalized: bool(f.Layer.Normalized), LinearFilter: bool(f.Layer.LinearMixer), Activation: activation,
		Untied: f.Tied != nil && !bool(*f.Tied),
	}
	if c.Freq == 0 && f.DModel > 0 {
		c.Freq = 1 // what hyena-dna and the port have, MultiMolecule 10
	}
	c.NoModulation = f.Layer.Modulate != nil && !bool(*f.Layer.Modulate)
	if c.Vocab = f.VocabSize; c.Vocab > 0 {
		padded, ok := lm.PaddedVocab(f.VocabSize, f.PadMultiple)
		if !ok {
			return Config{}, check.Errorf(ErrConfig, "dna: config.json: vocab_size is %d and pad_vocab_size_multiple %d", f.VocabSize, f.PadMultiple)
		}
		c.Vocab = padded
	}
	return c, c.check("dna: config.json: ")
}

// activations are the names of src/models/nn, of those that are computed.
var activations = map[string]hyena.Activation{
	"": hyena.Identity, "id": hyena.Identity, "identity": hyena.Identity, "linear": hyena.Identity,
	"tanh": hyena.Tanh, "relu": hyena.ReLU, "sqrelu": hyena.SquaredReLU, "relu2": hyena.SquaredReLU,
	"gelu": hyena.GELU, "swish": hyena.SiLU, "silu": hyena.SiLU, "sigmoid": hyena.Sigmoid, "softplus": hyena.Softplus,
}

// checkKeys returns an error that names a key whose value is not computed.
func checkKeys(k weights.Keys) error {
	const tiny, huge = math.SmallestNonzeroFloat32, math.MaxFloat32
	gelu := []any{"gelu_new", "gelu_pytorch_tanh", "gelu_tanh", "gelu_approx"}
	for _, err := range []error{
		k.Only("model_type", "hyenadna", "hyena", "hyena_dna", "hyena-dna"),
		k.Only("layer._name_", "hyena"), k.Only("layer.filter_cls", "hyena-filter"),
		k.Only("layer.bidirectional", false), k.Only("bidirectional", false), k.Only("rcps", false),
		k.Only("layer.normalized", true, false), k.Only("layer.linear_mixer", true, false), k.Only("layer.modulate", true, false),
		k.Only("tie_word_embeddings", true, false), k.Only("layer.bias", true), k.Only("use_bias", true),
		k.Only("layer.num_heads", 1.0), k.Only("layer.num_blocks", 1.0), k.Only("layer.inner_factor", 1.0), k.Only("layer.channels", 1.0),
		k.Only("layer.outer_mixing", false), k.Only("layer.post_order_ffn", false),
		k.Only("attn_layer_idx", []any{}), k.Only("identity_mlp", false), k.Only("use_flashfftconv", false),
		k.Only("hidden_act", gelu...), k.Only("activation_function", gelu...),
		k.Counts("vocab_size", "pad_vocab_size_multiple", "d_model", "n_layer", "d_inner", "max_seq_len", "emb_dim", "hyena_order", "hidden_size",
			"num_hidden_layers", "intermediate_size", "max_position_embeddings", "filter_emb_dim", "layer.l_max", "layer.emb_dim", "layer.order"),
		k.Range(tiny, huge, "layer_norm_epsilon", "layer_norm_eps", "layer.w", "activation_freq", "layer.fast_decay_pct", "layer.slow_decay_pct"),
		k.Range(tiny, 1, "layer.target"), k.Range(-huge, huge, "layer.shift"),
	} {
		if err != nil {
			return err
		}
	}
	if k.Given("layer.l_max") {
		// The repository's src/ adds learned positions where there are some; elsewhere the
		// name is that of l_max.
		return k.Only("max_position_embeddings", 0.0)
	}
	return nil
}

// truth is a bool that Python code may have written as a number.
type truth bool

// UnmarshalJSON implements json.Unmarshaler.
func (t *truth) UnmarshalJSON(text []byte) error {
	switch string(text) {
	case "true", "1":
		*t = true
	case "false", "0", "null":
		*t = false
	default:
		return errors.New(string(text) + " is neither true nor false")
	}
	return nil
}

// configFile has the names of all three forms.
type configFile struct {
	VocabSize   int    `json:"vocab_size"`
	PadMultiple int    `json:"pad_vocab_size_multiple"`
	Tied        *truth `json:"tie_word_embeddings"`
	// hyena-dna and the Hugging Face port
	DModel int `json:"d_model"`
	NLayer int `json:"n_layer"`
	DInner int `json:"d_inner"`
	// hyena-dna
	Layer struct {
		LMax        int      `json:"l_max"`
		EmbDim      int      `json:"emb_dim"`
		Order       int      `json:"order"`
		W           float64  `json:"w"`
		Modulate    *truth   `json:"modulate"`
		Shift       *float64 `json:"shift"`
		FastDecay   float64  `json:"fast_decay_pct"`
		SlowDecay   float64  `json:"slow_decay_pct"`
		Target      float64  `json:"target"`
		Normalized  truth    `json:"normalized"`
		LinearMixer truth    `json:"linear_mixer"`
		Activation  string   `json:"activation"`
	} `json:"layer"`
	// the Hugging Face port
	MaxSeqLen  int     `json:"max_seq_len"`
	EmbDim     int     `json:"emb_dim"`
	HyenaOrder int     `json:"hyena_order"`
	Epsilon    float64 `json:"layer_norm_epsilon"`
	// and MultiMolecule
	ActivationFreq   float64 `json:"activation_freq"`
	HiddenSize       int     `json:"hidden_size"`
	NumHiddenLayers  int     `json:"num_hidden_layers"`
	IntermediateSize int     `json:"intermediate_size"`
	MaxPositions     int     `json:"max_position_embeddings"`
	FilterEmbDim     int     `json:"filter_emb_dim"`
	NormEps          float64 `json:"layer_norm_eps"`
}
