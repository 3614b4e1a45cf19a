package rope

import (
	"sort"
	"strings"
)

// Compat says as which version of transformers a config.json is read: the same file
// gives other frequencies in each. AnyModel may be added to any of them.
type Compat uint8

const (
	// V5 is the current reading: an original_max_position_embeddings beside the rope
	// parameters overrides the one within, unless they are by layer type, and
	// max_position_embeddings stands in. A partial_rotary_factor within overrides the
	// one beside; Llama and those whose code is like its own (all versions) ignore either
	// where nothing is scaled.
	V5 Compat = iota
	// V4 is that of versions 4.49 to 4.57. YaRN with an original length among its
	// parameters takes for its factor how many times max_position_embeddings that is,
	// whatever the factor says. LongRoPE knows an original length only beside its
	// parameters, which then makes the factor. The partial_rotary_factor beside the
	// parameters overrides the one within. A base that no key says is 10000 in OLMo 3 and
	// Cohere, 500000 in V5.
	V4
	// V448 is that of versions up to 4.48: YaRN takes max_position_embeddings for the
	// original length, and knows neither mscale nor truncate. LongRoPE is as in V4.
	V448
	// V443 is V448 with LongRoPE decided when the model is loaded: the long factors if
	// the context is stretched at all, for all sequences.
	V443

	// AnyModel reads a model type that this package does not know as if the file had
	// none: all layers rotate all features in the layout Half, as far as the file's
	// own keys say nothing else. Without it such a file is an error.
	AnyModel Compat = 1 << 7
)

// Encoding is how a model tells the positions of tokens.
type Encoding uint8

const (
	// Rotary models rotate queries and keys, in all layers or in some.
	Rotary Encoding = iota
	// NoPositions models have no encoding: causal masks or recurrent layers do
	// (Jamba, Kimi Linear).
	NoPositions
	// ALiBi models add a bias to the logits: see NewALiBi (BLOOM, MPT).
	ALiBi
	// Absolute models add a vector for each position to the embeddings, learned or
	// sinusoidal (GPT-2, BERT, CLIP).
	Absolute
	// Relative models add learned biases of distances to the logits (T5, DeBERTa).
	Relative
)

// String names the encoding.
func (e Encoding) String() string {
	return nameOf(int(e), "rotary", "none", "ALiBi", "absolute", "relative")
}

// HF is what a Hugging Face config.json says about positions.
type HF struct {
	// ModelType is the model_type of the part that was read: of the text_config, where
	// there is one.
	ModelType string
	// Encoding is Rotary unless nothing rotates in any layer.
	Encoding Encoding
	// MaxPosition is max_position_embeddings, 0 if the file does not say.
	MaxPosition int64
	// Types lists the layer types that have parameters of their own, sorted; none
	// where all layers share theirs.
	Types []string
	// Layers has the type of each layer, as far as the file and its model type say.
	Layers []string
	// Unknown lists the keys, as "rope_scaling.foo" or "vision_config.rope_theta",
	// that seem to be about positions and were not used: keys of the rope parameters
	// without a meaning for their rope type, and keys at any level that nothing reads. A
	// caller that must not be wrong refuses a file with any that it does not know.
	Unknown []string

	configs map[string]Config // by layer type; "" for all
	layers  []Config          // of each layer; nil where the file does not say how many
	alike   bool              // all layers are configs[""], however many there are
}

// FromHF reads a config.json in the schema of transformers v4 (rope_theta,
// rope_scaling) or v5 (rope_parameters, also by layer type), with the names that
// models outside of it use. The text model is read where a file describes several
// (text_config, llm_config, language_config, thinker_config).
//
// What a file leaves out is what the code of its model type has in the version that compat
// names: the base, how much of a head rotates, the layout, which layers rotate and which of them are scaled. About
// 300 model types are known; another one is an error, unless compat has [AnyModel]. A
// file without a model_type is read as AnyModel reads it. Where transformers 5 has a
// known defect (OLMo 3's scaling on sliding layers), the models' own code is followed.
//
// Errors match ErrConfig and name the key and its value. Accuracy, Length and Workers
// of the configurations are left to the caller.
func FromHF(data []byte, compat Compat) (*HF, error) {
	anyModel := compat&AnyModel != 0
	compat &^= AnyModel
	if compat > V443 {
		return nil, configErrorf("Compat is %d, want V5, V4, V448 or V443", compat)
	}
	top, err := newSection("", data)
	if err != nil {
		return nil, err
	}
	h := &hfReader{compat: compat, anyModel: anyModel, out: &HF{configs: map[string]Config{}}}
	h.text = h.textModel(top)
	if top.err == nil {
		h.readModel()
	}
	if top.err != nil {
		return nil, top.err
	}
	h.out.Unknown = top.unread(data)
	return h.out, nil
}

// Config returns the configuration of the layers of a type; "" or any type where all
// share it. "" is also what all layers that rotate share, or those of softmax attention
// in a model whose linear attention rotates too. Config.None says that nothing rotates
// in them.
//
// In models of latent attention (DeepSeek's MLA) HeadDim is the part of a head that
// rotates, which those models keep apart (qk_rope_head_dim); in all others it is the
// whole head, of which Offset and RotaryDim tell what rotates. See also
// [Config.SoftmaxFactor]. A type that the model has not is an error that matches ErrConfig.
func (m *HF) Config(layerType string) (Config, error) {
	if len(m.Types) == 0 {
		layerType = ""
	}
	cfg, ok := m.configs[layerType]
	if !ok {
		return Config{}, configErrorf("layer type is %q, want one of %s", layerType, strings.Join(m.Types, ", "))
	}
	return cfg, nil
}

// Layer returns the configuration of layer i, counted from 0. It may have None where
// others of the same type rotate (Llama 4, SmolLM3). Where all layers are the same, i may
// be of any size. Errors match ErrConfig.
func (m *HF) Layer(i int) (Config, error) {
	switch {
	case i >= 0 && i < len(m.layers):
		return m.layers[i], nil
	case i < 0:
		return Config{}, configErrorf("layer is %d, want 0 or more", i)
	case m.alike:
		return m.Config("")
	}
	return Config{}, configErrorf("layer is %d, the config.json tells of %d", i, len(m.layers))
}

// setType keeps the configuration of a layer type.
func (m *HF) setType(layerType string, cfg Config) {
	if _, again := m.configs[layerType]; layerType != "" && !again {
		m.Types = append(m.Types, layerType)
		sort.Strings(m.Types)
	}
	m.configs[layerType] = cfg
}

// setShared gives "" the configuration that all rotating types share, if they do, or
// that of full attention if linear attention rotates too.
func (m *HF) setShared(linearToo bool) {
	if _, given := m.configs[""]; given {
		return
	}
	if cfg, ok := m.configs[fullLayer]; ok && linearToo {
		m.configs[""] = cfg
		return
	}
	var shared *Config
	for _, name := range m.Types {
		cfg := m.configs[name]
		switch {
		case cfg.None:
		case shared == nil:
			shared = &cfg
		case !sameConfig(*shared, cfg):
			return
		}
	}
	if shared != nil {
		m.configs[""] = *shared
	}
}
