package transformer

import (
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/rope"
)

// More than any model has: sizes of files are not trusted.
const (
	mostLayers  = 1 << 12
	mostWide    = 1 << 20
	mostHeads   = 1 << 12
	mostHeadDim = 1 << 12
	mostExperts = 1 << 14
	mostVocab   = 1 << 26
)

func sqrt(n int) float32         { return float32(math.Sqrt(float64(n))) }
func sqrt32(x float32) float32   { return float32(math.Sqrt(float64(x))) }
func divides(n, m int) bool      { return m > 0 && n%m == 0 }
func known() (list []string)     { return slices.Sorted(maps.Keys(modelTypes)) }
func isSliding(kind string) bool { return kind == "sliding_attention" }

// elsewhere says of model types that are not read here why, or which package reads them.
var elsewhere = map[string]string{
	"mamba": ", which package mamba reads", "mamba2": ", which package mamba reads", "falcon_mamba": ", which package mamba reads", "mamba_ssm": ", which package mamba reads",
	"rwkv7":        ", which package rwkv reads",
	"hyenadna":     ", which package dna reads",
	"stripedhyena": ", which package striped reads",
	"zamba2":       ", whose shared blocks read the embeddings again, which is not computed",
}

// ParseConfig reads a config.json. Errors match ErrConfig and name the key: of a model type
// that this package does not know, too.
func ParseConfig(text []byte) (*Shape, error) {
	top, err := newSection(text)
	if err != nil {
		return nil, err
	}
	f := top
	if top.has("text_config") {
		f = top.sub("text_config")
	}
	s := &Shape{ModelType: f.text("model_type", textType(top.text("model_type", "")))}
	if *top.err != nil {
		return nil, *top.err
	}
	kind, ok := modelTypes[s.ModelType]
	if !ok {
		note := elsewhere[s.ModelType]
		if s.ModelType == "" && top.has("ssm_cfg") { // the official files of Mamba name no type
			note = elsewhere["mamba"]
		}
		top.fail("model_type is %.100q%s, want one of %s", s.ModelType, note, strings.Join(known(), ", "))
		return nil, *top.err
	}
	text = complete(top, f, s.ModelType, top.has("text_config"))
	refuse(top, f, s.ModelType)
	s.readSizes(f, &kind)
	hf, err := rope.FromHF(text, rope.V5)
	if err != nil {
		top.fail("%v", err)
	}
	if *top.err != nil {
		return nil, *top.err
	}
	s.readRotations(f, hf)
	s.readKnobs(top, f, &kind)
	if *top.err == nil && kind.more != nil {
		kind.more(s, f)
	}
	if *top.err == nil {
		s.readWindows(f, hf, &kind)
		s.readEnds(top, f)
	}
	if *top.err != nil {
		return nil, *top.err
	}
	return s, nil
}

// textType is the model type of the text part, where it does not say, of a model with several.
func textType(whole string) string {
	if _, ok := modelTypes[whole]; !ok {
		if text := whole + "_text"; modelTypes[text].eps != 0 {
			return text
		}
	}
	return whole
}

// readSizes reads the widths.
func (s *Shape) readSizes(f section, kind *modelType) {
	s.Dim, s.Vocab = f.must("hidden_size", mostWide), f.must("vocab_size", mostVocab)
	if kind.layers != nil && !f.has("num_hidden_layers") {
		s.Layers = min(kind.layers(f), mostLayers)
	} else {
		s.Layers = f.must("num_hidden_layers", mostLayers)
	}
	s.Heads = f.must("num_attention_heads", mostHeads)
	if s.Inner = f.count("intermediate_size", 0, mostWide); s.Inner == 0 && !kind.noInner {
		s.Inner = f.must("intermediate_size", mostWide)
	}
	s.MaxPosition = int64(f.count("max_position_embeddings", 0, math.MaxInt32))
	s.KVHeads = s.Heads
	if f.has("num_key_value_heads") {
		s.KVHeads = f.must("num_key_value_heads", mostHeads)
	} else if kind.askHeads && !f.null("num_key_value_heads") {
		f.fail("no num_key_value_heads")
	}
	s.HeadDim = kind.headDim
	if key := f.either("head_dim", "attention_head_dim"); f.has(key) && !kind.split {
		s.HeadDim = f.must(key, mostHeadDim)
	} else if s.HeadDim == 0 {
		// Latent attention has widths of its own for heads.
		if s.HeadDim = max(s.Dim/s.Heads, 1); !divides(s.Dim, s.Heads) && !f.has("kv_lora_rank") {
			f.fail("hidden_size is %d, no multiple of num_attention_heads = %d, and there is no head_dim", s.Dim, s.Heads)
		}
	}
	if !divides(s.Heads, s.KVHeads) {
		f.fail("num_attention_heads is %d, no multiple of num_key_value_heads = %d", s.Heads, s.KVHeads)
	}
	s.scale = 1 / sqrt(s.HeadDim)
}

// readRotations asks package rope what rotates in each layer.
func (s *Shape) readRotations(f section, hf *rope.HF) {
	for i := range s.Layers {
		cfg, err := hf.Layer(i)
		if err != nil {
			f.fail("%v", err)
			return
		}
		s.Rotations = append(s.Rotations, cfg)
	}
}

// readKnobs reads what has a default for each model type.
func (s *Shape) readKnobs(top, f section, kind *modelType) {
	eps := "rms_norm_eps"
	if kind.epsKey != "" {
		eps, s.layerNorm = kind.epsKey, !kind.rms
	}
	s.eps, s.onePlus, s.places, s.qkNorm = f.number(eps, kind.eps), kind.onePlus, kind.places, kind.qkNorm
	s.fused, s.fusedMLP = kind.fused, kind.fused
	said := kind.bias == saidBias && f.flag("attention_bias", false)
	s.qkvBias, s.outBias = said || kind.bias == qkvAlways, said
	s.tied = top.flag("tie_word_embeddings", f.flag("tie_word_embeddings", kind.tied))
	s.headless = !s.tied && (top.has("tie_word_embeddings") || f.has("tie_word_embeddings"))
	key, act := "hidden_act", "silu"
	if kind.act != "" {
		act = kind.act
	}
	if kind.renamed && (s.ModelType != "gemma" || f.has("hidden_activation")) {
		key = "hidden_activation"
	}
	act = f.text(key, act)
	switch act {
	case "silu", "swish":
	case "gelu_pytorch_tanh", "gelu_new", "gelu_fast":
		s.act = dense.GELUTanh
	case "gelu":
		// Gemma's files say gelu for the tanh form, which it was trained with.
		if s.act = dense.GELU; s.ModelType == "gemma" {
			s.act = dense.GELUTanh
		}
	default:
		f.fail("%s is %.100q, want silu, gelu or gelu_pytorch_tanh", key, act)
	}
	for _, at := range []section{top, f} {
		if at.has("quantization_config") {
			s.readQuantization(at.sub("quantization_config"))
		}
	}
}

// readWindows finds the window of each layer.
func (s *Shape) readWindows(f section, hf *rope.HF, kind *modelType) {
	s.Windows = make([]int, s.Layers)
	window := kind.window
	if f.null("sliding_window") {
		window = 0
	}
	window = f.count("sliding_window", window, math.MaxInt32)
	if kind.optional && !f.flag("use_sliding_window", false) {
		window = 0
	}
	if kind.slides == noLayer || window == 0 {
		return
	}
	var types []string
	f.decode("layer_types", &types)
	if types != nil && len(types) < s.Layers {
		f.fail("layer_types has %d elements, want num_hidden_layers = %d", len(types), s.Layers)
		return
	}
	if types == nil && kind.slides == mostOnes && len(hf.Layers) == s.Layers {
		types = hf.Layers // by a pattern, which some files write in letters
	}
	late := f.count("max_window_layers", 28, math.MaxInt32)
	for i := range s.Layers {
		var slides bool
		switch {
		case types != nil && kind.slides != allLayers, types != nil && s.ModelType == "ministral":
			if t := types[i]; t != "full_attention" && !isSliding(t) {
				f.fail("layer_types[%d] is %.100q, want full_attention or sliding_attention", i, t)
			}
			slides = isSliding(types[i])
		default:
			switch kind.slides {
			case allLayers:
				slides = true
			case lateOnes:
				slides = i >= late
			case evenOnes:
				slides = i%2 == 0
			case unrotated:
				slides = s.Rotations[i].None
			case mostOnes:
				slides = (i+1)%kind.pattern != 0
			}
		}
		if slides {
			s.Windows[i] = window
		}
	}
}

// readEnds reads the tokens that begin and end a text.
func (s *Shape) readEnds(top, f section) {
	s.BOS = -1
	for _, at := range []section{f, top} {
		if list := at.tokens("bos_token_id"); len(list) > 0 {
			s.BOS = list[0]
		}
		if at.has("eos_token_id") {
			s.EOS = at.tokens("eos_token_id")
		}
	}
	if e := s.Experts; e != nil && e.TopK > e.Count {
		f.fail("num_experts_per_tok is %d, more than the %d experts", e.TopK, e.Count)
	}
}
