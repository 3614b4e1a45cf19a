package rope

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"
)

// Compat says as which version of transformers a config.json is read. The same
// file gives other frequencies in each.
type Compat uint8

const (
	// V5 is the current reading: an original_max_position_embeddings beside the rope
	// parameters overrides the one within, unless they are by layer type, and
	// max_position_embeddings stands in.
	V5 Compat = iota
	// V4 is that of versions 4.49 to 4.57. YaRN with an original length among its
	// parameters takes for its factor how many times max_position_embeddings that is,
	// whatever the factor says. LongRoPE knows an original length only beside its
	// parameters, which then makes the factor.
	V4
	// V448 is that of versions up to 4.48: YaRN takes max_position_embeddings for the
	// original length, and knows neither mscale nor truncate. LongRoPE is as in V4.
	V448
	// V443 is V448 with LongRoPE decided when the model is loaded: the long factors if
	// the context is stretched at all, for all sequences.
	V443
)

// HF is what a Hugging Face config.json says about positions.
type HF struct {
	// MaxPosition is max_position_embeddings, 0 if the file does not say.
	MaxPosition int64
	// Types lists the layer types that have parameters of their own, sorted; none
	// where all layers share theirs.
	Types []string
	// Layers has the type of each layer, as far as the file says.
	Layers []string
	// Unknown lists keys of the rope parameters that have no meaning for their rope
	// type, as "rope_scaling.foo". They are not used.
	Unknown []string

	configs map[string]Config
}

// FromHF reads a config.json in the schema of transformers v4 (rope_theta,
// rope_scaling) or v5 (rope_parameters, also by layer type), with the names that
// older models use: type for rope_type, su, rotary_pct, rotary_emb_base,
// rotary_dim, qk_rope_head_dim, rope_local_base_freq, and a text_config. Errors
// match ErrConfig and name the key and its value.
//
// Accuracy, Length and Workers of the configurations are left to the caller.
//
// The layout follows model_type: interleaved for the models known to have it (a
// list from memory, not checked against each), half otherwise.
func FromHF(data []byte, compat Compat) (*HF, error) {
	if compat > V443 {
		return nil, configErrorf("Compat is %d", compat)
	}
	top, err := newSection("", data)
	if err != nil {
		return nil, err
	}
	if top.has("text_config") && !top.has("hidden_size") {
		text, err := top.section("text_config")
		if err != nil {
			return nil, err
		}
		for k, v := range top.values { // what the text model does not say
			if !text.has(k) {
				text.values[k] = v
			}
		}
		text.name, text.root = "", text
		top = text
	}
	h := &hfReader{top: top, compat: compat, out: &HF{configs: map[string]Config{}}}
	h.read()
	if h.top.err != nil {
		return nil, h.top.err
	}
	return h.out, nil
}

// Config returns the configuration of the layers of a type; "" or any type where
// all share it.
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

// Layer returns the configuration of layer i.
func (m *HF) Layer(i int) (Config, error) {
	switch {
	case len(m.Types) == 0:
		return m.Config("")
	case i < 0 || i >= len(m.Layers):
		return Config{}, configErrorf("layer is %d, the config.json tells the type of %d", i, len(m.Layers))
	}
	return m.Config(m.Layers[i])
}

// interleavedModels are the model types that rotate pairs (2i, 2i+1).
var interleavedModels = []string{"codegen", "cohere", "cohere2", "deepseek_v2", "ernie4_5", "glm", "glm4", "gptj", "helium", "llama4_text", "roformer"}

type hfReader struct {
	top    *section
	compat Compat
	out    *HF
}

func (h *hfReader) read() {
	t := h.top
	h.out.MaxPosition = t.integer("max_position_embeddings", 0)
	h.out.Layers = t.strings("layer_types")
	cfg := Config{HeadDim: h.headDim()}
	model := t.text("model_type", "")
	if slices.Contains(interleavedModels, model) || t.boolean("rope_interleave", model == "deepseek_v3") {
		cfg.Layout = Interleaved
	}
	name := "rope_scaling" // where a file has both it counts
	if !t.has(name) || string(t.values[name]) == "{}" {
		name = "rope_parameters"
	}
	params := &section{name: name, values: map[string]json.RawMessage{}, root: t.root}
	if t.has(name) {
		var err error
		if params, err = t.section(name); err != nil {
			t.fail(err)
			return
		}
	}
	global := t.number("rope_theta", t.number("rotary_emb_base", t.number("global_rope_theta", 10000)))
	switch {
	case params.nested():
		for layerType := range params.values {
			sub, err := params.section(layerType)
			if err != nil {
				t.fail(err)
				return
			}
			sub.perLayer = true
			h.set(layerType, h.layer(cfg, sub, global))
		}
	case t.has("rope_local_base_freq") || t.has("local_rope_theta"): // Gemma 3 and ModernBERT before v5
		local := t.number("rope_local_base_freq", t.number("local_rope_theta", 10000))
		none := &section{name: name, values: map[string]json.RawMessage{}, root: t.root}
		h.set("sliding_attention", h.layer(cfg, none, local))
		h.set("full_attention", h.layer(cfg, params, global))
		h.layersByPattern()
	default:
		h.set("", h.layer(cfg, params, global))
	}
	sort.Strings(h.out.Types)
	sort.Strings(h.out.Unknown)
}

func (h *hfReader) set(layerType string, cfg Config) {
	h.out.configs[layerType] = cfg
	if layerType != "" {
		h.out.Types = append(h.out.Types, layerType)
	}
}

// headDim is the width of the heads that rotate.
func (h *hfReader) headDim() int {
	t := h.top
	for _, key := range []string{"head_dim", "qk_rope_head_dim"} {
		if d := t.width(key); d != 0 {
			return d
		}
	}
	for _, key := range [][2]string{{"hidden_size", "num_attention_heads"}, {"n_embd", "n_head"}, {"d_model", "n_heads"}} {
		width, heads := t.integer(key[0], 0), t.integer(key[1], 0)
		if t.has(key[0]) && t.has(key[1]) {
			if heads <= 0 || width < heads || width/heads > maxWidth {
				t.fail(configErrorf("config.json: %s is %d and %s is %d, want heads of 1 to %d features", key[0], width, key[1], heads, maxWidth))
				return 0
			}
			return int(width / heads)
		}
	}
	t.fail(configErrorf("config.json: neither head_dim nor hidden_size and num_attention_heads are there"))
	return 0
}

// layersByPattern gives each layer its type where the file has only a rule.
func (h *hfReader) layersByPattern() {
	t := h.top
	n := t.integer("num_hidden_layers", 0)
	if h.out.Layers != nil || n > 1<<20 {
		return
	}
	pattern, last := t.integer("sliding_window_pattern", 0), int64(0)
	if pattern == 0 {
		pattern, last = t.integer("global_attn_every_n_layers", 0), 1
	}
	if pattern <= 0 {
		return
	}
	for i := range n {
		kind := "sliding_attention"
		if (i+1)%pattern == last%pattern {
			kind = "full_attention"
		}
		h.out.Layers = append(h.out.Layers, kind)
	}
}

// layer makes the configuration of one set of rope parameters.
func (h *hfReader) layer(cfg Config, p *section, theta float64) Config {
	t := h.top
	kind := p.text("rope_type", p.text("type", "default"))
	keys, known := ropeKeys[kind]
	if !known {
		key := "rope_type"
		if !p.has(key) {
			key = "type"
		}
		p.fail(configErrorf("config.json: %s is %q, want one of %s", p.path(key), kind, strings.Join(ropeTypes(), ", ")))
		return cfg
	}
	for k := range p.values {
		if !slices.Contains(keys, k) && !slices.Contains(commonKeys, k) {
			h.out.Unknown = append(h.out.Unknown, p.path(k))
		}
	}
	cfg.Base = p.number("rope_theta", theta)
	fraction := t.number("partial_rotary_factor", t.number("rotary_pct", t.number("rope_pct", p.number("partial_rotary_factor", 1))))
	if !(fraction > 0 && fraction <= 1) {
		p.fail(configErrorf("config.json: partial_rotary_factor is %v, want a number above 0, at most 1", fraction))
		return cfg
	}
	cfg.RotaryDim = int(float64(cfg.HeadDim) * fraction)
	if d := t.width("rotary_dim"); d != 0 {
		cfg.RotaryDim = d
	}
	if kind == "proportional" {
		cfg.RotaryDim = cfg.HeadDim
	}
	for _, s := range p.numbers("mrope_section") {
		if s < 0 || s != math.Trunc(s) || s > float64(cfg.HeadDim) {
			p.fail(configErrorf("config.json: %s has the element %v", p.path("mrope_section"), s))
			return cfg
		}
		cfg.Sections = append(cfg.Sections, int(s))
	}
	cfg.SectionsInterleaved = p.boolean("mrope_interleaved", false)
	cfg.Scheme = h.scheme(kind, p, fraction)
	if p.root.err == nil {
		if _, err := New(cfg); err != nil {
			p.fail(configErrorf("config.json: %s: %s", p.name, strings.TrimPrefix(err.Error(), "rope: ")))
		}
	}
	return cfg
}

// commonKeys can stand beside any rope type; ropeKeys lists the types and what
// each may have besides.
var (
	commonKeys = []string{"rope_type", "type", "rope_theta", "partial_rotary_factor", "mrope_section", "mrope_interleaved"}
	longRoPE   = []string{"short_factor", "long_factor", "factor", "attention_factor", "original_max_position_embeddings"}
	ropeKeys   = map[string][]string{
		"default": nil,
		"mrope":   nil,
		"linear":  {"factor"},
		"dynamic": {"factor", "original_max_position_embeddings"},
		"yarn": {"factor", "attention_factor", "beta_fast", "beta_slow", "original_max_position_embeddings",
			"mscale", "mscale_all_dim", "truncate"},
		"longrope":     longRoPE,
		"su":           longRoPE,
		"llama3":       {"factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"},
		"proportional": {"factor"},
	}
)

func ropeTypes() (list []string) {
	for k := range ropeKeys {
		list = append(list, fmt.Sprintf("%q", k))
	}
	sort.Strings(list)
	return list
}
