package rope

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
)

// hfReader reads one config.json.
type hfReader struct {
	compat   Compat
	anyModel bool     // unknown model types are read too
	text     *section // of the text model
	row      hfModel  // what its model type says
	out      *HF

	params *section // rope_scaling or rope_parameters; empty where there are none
	nested bool     // params has an object for each layer type
	count  int      // layers; 0 if unknown
	types  []string // [count], or nil

	// Of each layer, as far as there are any: whether it rotates, its base and its
	// partial_rotary_factor.
	rotates          []bool
	bases, fractions []float64
	base, fraction   float64 // of the layer that is being made; 0 for those of its type
	made             int     // configurations
}

// mostKinds bounds the configurations that a file can ask for.
const mostKinds = 512

// textKeys are where files of several models have that of the text.
var textKeys = []string{"text_config", "llm_config", "language_config", "thinker_config"}

// textModel returns the section of the text model, and sets the model type: its own,
// or that of the section around it.
func (h *hfReader) textModel(s *section) *section {
	for {
		h.out.ModelType = s.text("model_type", h.out.ModelType)
		if row, ok := findModel(h.out.ModelType); ok && row.encoding != Rotary {
			return s
		}
		at := slices.IndexFunc(textKeys, func(key string) bool { return s.own(key) && s.isKind(key, '{') })
		if at < 0 {
			return s
		}
		inner := s.sub(textKeys[at])
		inner.outer = s
		s = inner
	}
}

func (h *hfReader) readModel() {
	t := h.text
	row, known := findModel(h.out.ModelType)
	if !known && h.out.ModelType != "" && !h.anyModel {
		t.fail(configErrorf("config.json: %s is %q, which is not known: with AnyModel it is read by its keys alone", t.path("model_type"), h.out.ModelType))
		return
	}
	h.row = row
	if t.boolean("position_encoding_2d", false) { // the first ChatGLM
		t.fail(configErrorf("config.json: %s is true, which is not supported", t.path("position_encoding_2d")))
	}
	if !t.boolean("rotary_value", false) { // RoFormer, which does not rotate values
		t.pass("rotary_value")
	}
	if row.layers == sameLayers && slices.ContainsFunc(localKeys, t.has) {
		h.row.layers = localBase
	}
	for _, key := range []string{"max_position_embeddings", "max_seq_len", "n_positions", "seq_length", "max_sequence_length", "model_max_length"} {
		if t.has(key) && h.out.MaxPosition == 0 {
			h.out.MaxPosition = t.integer(key, 0)
		}
	}
	h.readLayers()
	h.out.Encoding = h.encoding()
	if t.root.err != nil {
		return
	}
	if h.out.Encoding != Rotary {
		t.pass("rope_theta", "rope_scaling", "rope_parameters") // which have no meaning
		h.out.setType("", Config{None: true})
	} else {
		h.readParams()
		h.setTypes()
	}
	if t.root.err != nil {
		return
	}
	h.setLayers()
	if len(h.out.layers) > 0 && !slices.ContainsFunc(h.out.layers, func(cfg Config) bool { return !cfg.None }) && h.out.Encoding == Rotary {
		h.out.Encoding = NoPositions
	}
}

// encoding finds out whether the model rotates at all.
func (h *hfReader) encoding() Encoding {
	t := h.text
	e := h.row.encoding
	if t.isKind("attn_config", '{') { // MPT, DBRX
		if attn := t.sub("attn_config"); attn.has("alibi") || attn.has("rope") {
			switch {
			case attn.boolean("alibi", false):
				attn.use("alibi_bias_max", "rope")
				return ALiBi
			case attn.boolean("rope", false):
				e = Rotary
			case e == ALiBi:
				e = Absolute
			}
		}
	}
	switch {
	case t.boolean("alibi", false), t.boolean("use_alibi", false),
		h.out.ModelType == "baichuan" && t.integer("hidden_size", 4096) > 4096: // its larger model
		return ALiBi
	case t.boolean("mla_use_nope", false), !t.boolean("use_rope", true), h.row.optional && !t.boolean("use_mem_rope", false):
		return NoPositions
	}
	if h.row.always {
		t.pass("position_embedding_type")
	}
	if !t.has("position_embedding_type") || h.row.always {
		return e
	}
	switch kind := t.text("position_embedding_type", ""); kind {
	case "rope", "rotary":
		return Rotary
	case "alibi":
		return ALiBi
	case "none", "nope", "":
		return NoPositions
	case "absolute", "learned", "learned_absolute", "sinusoidal":
		return Absolute
	case "relative_key", "relative_key_query", "relative":
		return Relative
	default:
		t.fail(configErrorf(`config.json: %s is %q, want "rope", "alibi", "absolute", "relative_key" or "none"`, t.path("position_embedding_type"), kind))
	}
	return e
}

// readParams finds the rope parameters.
func (h *hfReader) readParams() {
	t := h.text
	name := "rope_scaling" // where a file has both it counts
	other := "rope_parameters"
	if !t.has(name) || string(t.find(name).values[name]) == "{}" {
		t.use(name)
		name, other = other, ""
	}
	_, written := t.values["rope_scaling"]
	if h.row.params != "" && !t.has(name) && (h.compat == V5 || !written) {
		p, err := newSection(name, []byte(h.row.params))
		if err != nil {
			t.fail(err)
			return
		}
		p.root, h.params = t.root, p
	} else {
		h.params = t.sub(name)
	}
	if other != "" && t.has(other) && includes(t.raw(name), t.raw(other)) {
		t.pass(other)
	}
	h.nested = h.byType()
	if h.nested && h.params.text("rope_type", "default") != "default" {
		h.params.fail(configErrorf("config.json: %s is beside parameters of layer types, want it within them", h.params.path("rope_type")))
	}
}

// byType tells whether the rope parameters are objects for each layer type: all that is
// there, or one with the name of a type.
func (h *hfReader) byType() bool {
	objects := 0
	for key := range h.params.values {
		if !h.params.isKind(key, '{') {
			continue
		}
		if strings.HasSuffix(key, "attention") || slices.Contains(h.types, key) || h.row.layers == compressed && (key == "main" || key == "compress") {
			return true
		}
		objects++
	}
	return objects > 0 && objects == len(h.params.values)
}

// includes tells whether all that b says but the base is in a as well.
func includes(a, b any) bool {
	x, ok := a.(map[string]any)
	y, ok2 := b.(map[string]any)
	if !ok || !ok2 {
		return false
	}
	for key, v := range y {
		if key != "rope_theta" && fmt.Sprint(x[key]) != fmt.Sprint(v) {
			return false
		}
	}
	return true
}

// paramsOf returns the parameters of a layer type: its own, or those of all.
func (h *hfReader) paramsOf(layerType string) *section {
	none := &section{name: h.params.name, values: map[string]json.RawMessage{}, root: h.params.root}
	label := layerType
	if h.row.layers == compressed && h.nested {
		if label = "compress"; layerType == slidingLayer {
			label = "main"
		}
	}
	switch {
	case h.nested:
		p := h.params.sub(label)
		p.byType = true
		return p
	case layerType == slidingLayer && (h.row.layers == localBase && !h.row.scaled || h.row.layers == fullScaled || h.row.layers == compressed):
		return none
	}
	if only := h.text.strings("yarn_only_types"); only != nil && layerType != "" && !slices.Contains(only, layerType) {
		return none
	}
	return h.params
}

// typeConfig makes the configuration of a layer type; "" is all layers.
func (h *hfReader) typeConfig(layerType string) Config {
	t := h.text
	if slices.Contains(withoutRotation, layerType) && (h.row.layers != linearRotates || t.has("short_conv_kernel_size")) {
		return Config{None: true} // no attention, or Ling 3's, whose linear layers do not rotate
	}
	if h.still(layerType) {
		return Config{None: true, HeadDim: h.headDim(layerType)}
	}
	if h.made++; h.made > mostKinds {
		t.fail(configErrorf("config.json: there are more than %d kinds of layers", mostKinds))
		return Config{None: true}
	}
	p := h.paramsOf(layerType)
	cfg := Config{HeadDim: h.headDim(layerType), Layout: h.layout(layerType), Reverse: h.row.reverse}
	kind := h.ropeType(p)
	cfg.Base = h.baseOf(layerType, p)
	fraction := h.fractionOf(p)
	if !(fraction > 0 && fraction <= 1) {
		p.fail(configErrorf("config.json: partial_rotary_factor is %v, want a number above 0, at most 1", fraction))
	}
	if t.root.err != nil {
		return cfg
	}
	if kind == "default" && slices.Contains(wholeHeads, h.out.ModelType) {
		fraction = 1
	}
	cfg.RotaryDim = h.rotaryDim(layerType, kind, cfg.HeadDim, fraction)
	if h.row.layers == compressed {
		cfg.Offset = max(cfg.HeadDim-cfg.RotaryDim, 0)
	}
	h.sections(&cfg, p)
	h.giveScheme(&cfg, kind, p, fraction)
	if t.root.err == nil {
		if _, err := New(cfg); err != nil {
			p.fail(configErrorf("config.json: %s: %s", p.name, strings.TrimPrefix(err.Error(), "rope: ")))
		}
	}
	return cfg
}

// still tells whether attention of a type does not rotate.
func (h *hfReader) still(layerType string) bool {
	switch h.row.layers {
	case slidingRotates:
		return layerType != slidingLayer && !h.windowless()
	case slidingOnly:
		return layerType != slidingLayer || h.row.window && h.windowless()
	}
	return false
}

// windowless tells whether a file says that there is no window.
func (h *hfReader) windowless() bool {
	v, ok := h.text.values["sliding_window"]
	return ok && string(v) == "null"
}

// sections reads those of M-RoPE. Where they do not fit the rotary dimension they are
// left out, which changes nothing for positions of text, and are not read.
func (h *hfReader) sections(cfg *Config, p *section) {
	const key = "mrope_section"
	if !p.has(key) {
		return
	}
	sum := 0.0
	list, _ := p.raw(key).([]any)
	for _, v := range list {
		s, ok := v.(float64)
		if !ok || s < 0 || s != math.Trunc(s) || s > maxWidth {
			p.fail(configErrorf("config.json: %s has the element %v, want whole numbers", p.path(key), v))
			return
		}
		cfg.Sections = append(cfg.Sections, int(s))
		sum += s
	}
	if sum != float64(cfg.RotaryDim/2) {
		cfg.Sections = nil
		return
	}
	p.use(key)
	cfg.SectionsInterleaved = p.boolean("mrope_interleaved", h.row.dealt)
}
