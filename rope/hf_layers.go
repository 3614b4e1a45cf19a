package rope

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
)

// mostLayers is more layers than any model has.
const mostLayers = 1 << 14

// The layer types that rules speak of.
const (
	fullLayer    = "full_attention"
	slidingLayer = "sliding_attention"
	linearLayer  = "linear_attention"
	crossLayer   = "cross_attention"
	sparseLayer  = "compressed_sparse_attention"
	heavilyLayer = "heavily_compressed_attention"
)

// withoutRotation are the layer types that are no attention, or none over the text.
var withoutRotation = []string{linearLayer, crossLayer, "mamba", "mamba2", "conv", "recurrent", "moe", "mlp"}

// layerRule says how layers differ, where a config.json has parameters for all.
type layerRule uint8

const (
	// sameLayers: all layers of attention rotate the same.
	sameLayers layerRule = iota
	// localBase: sliding layers have a base of their own and are not scaled (Gemma 3).
	localBase
	// fullScaled: sliding layers are not scaled (OLMo 3).
	fullScaled
	// slidingRotates: only sliding layers rotate, unless there is no window (EXAONE 4).
	slidingRotates
	// slidingOnly: only sliding layers rotate, so none without a window (Cohere 2).
	slidingOnly
	// someRotate: no_rope_layers says which layers rotate, or all but every fourth do
	// (Llama 4, SmolLM3).
	someRotate
	// compressed: sliding layers are plain; those over compressed keys have
	// compress_rope_theta and the scaling (DeepSeek-V4).
	compressed
	// linearRotates: layers of linear attention rotate a part of whole heads, the
	// others those of latent attention (Ling 2.5).
	linearRotates
)

// pattern tells whether layer i has full attention, where a file does not list types.
type pattern func(i int) bool

// every has full attention in the last of n layers, leading in the first of n.
func every(n int) pattern   { return func(i int) bool { return n > 0 && (i+1)%n == 0 } }
func leading(n int) pattern { return func(i int) bool { return n > 0 && i%n == 0 } }

// firstAndEvery is every, with the first layer besides.
func firstAndEvery(n int) pattern { return func(i int) bool { return i == 0 || (i+1)%n == 0 } }

// readLayers finds out how many layers there are and of which types.
func (h *hfReader) readLayers() {
	t := h.text
	for _, key := range []string{"num_hidden_layers", "num_layers", "n_layer", "n_layers", "decoder_num_hidden_layers", "num_transformer_layers"} {
		if h.count == 0 {
			h.count = t.count(key, 0, mostLayers)
		}
	}
	h.types = h.listedTypes()
	if h.types == nil {
		h.types = h.patternTypes()
	}
	if len(h.types) == 0 {
		h.types = nil // of an empty list, which says nothing
	}
	if h.count == 0 {
		h.count = len(h.types)
	}
	h.rotates = h.rotatingLayers()
	for _, n := range []int{len(h.rotates), len(h.bases), len(h.fractions)} {
		if h.count == 0 {
			h.count = n
		}
		if n > 0 && n < h.count {
			t.fail(configErrorf("config.json: a list for the layers has %d elements, want %d, one for each", n, h.count))
		}
	}
	if h.count > mostLayers {
		t.fail(configErrorf("config.json: there are %d layers, want at most %d", h.count, mostLayers))
		return
	}
	if n := len(h.types); n > h.count { // the types of layers for further tokens
		h.types = h.types[:h.count]
	} else if n < h.count && n > 0 {
		t.fail(configErrorf("config.json: types of %d layers are there, want %d", n, h.count))
	}
	h.out.Layers = h.types
}

// listedTypes returns the types of a file that has an element for each layer.
func (h *hfReader) listedTypes() (types []string) {
	t := h.text
	for _, key := range []string{"layer_types", "layers_block_type"} {
		if list := t.strings(key); len(list) > 0 { // an empty one says nothing
			return list
		}
	}
	if list := t.strings("block_types"); len(list) > 0 { // repeated (RecurrentGemma)
		for i := range h.count {
			types = append(types, strings.Replace(list[i%len(list)], "attention", fullLayer, 1))
		}
		return types
	}
	for _, list := range []struct {
		key   string
		names map[float64]string
	}{
		{"hybrid_layer_pattern", map[float64]string{0: fullLayer, 1: slidingLayer}},
		{"attn_type_list", map[float64]string{0: linearLayer, 1: fullLayer}},
		{"compress_ratios", map[float64]string{0: slidingLayer, 4: sparseLayer, 128: heavilyLayer}},
	} {
		for i, v := range t.numbers(list.key) {
			name, ok := list.names[v]
			if !ok {
				t.fail(configErrorf("config.json: %s[%d] is %v, which is no layer type", t.path(list.key), i, v))
			}
			types = append(types, name)
		}
		if types != nil {
			return types
		}
	}
	for _, list := range []struct {
		at           *section
		key          string
		first        float64 // the number of the first layer
		listed, rest string
	}{
		{t, "full_attn_idxs", 0, fullLayer, "conv"},
		{t, "attn_layer_indices", 0, fullLayer, "mamba"},
		{t, "cross_attention_layers", 0, crossLayer, fullLayer},
		{t.sub("linear_attn_config"), "full_attn_layers", 1, fullLayer, linearLayer},
	} {
		if !list.at.has(list.key) {
			continue
		}
		layers := list.at.numbers(list.key)
		for i := range h.count {
			name := list.rest
			if slices.Contains(layers, float64(i)+list.first) {
				name = list.listed
			}
			types = append(types, name)
		}
		return types
	}
	return nil
}

// patternTypes returns the types of a file or a model type that has a rule for them.
func (h *hfReader) patternTypes() (types []string) {
	t, full, rest := h.text, h.row.full, slidingLayer
	if h.row.rest != "" {
		rest = h.row.rest
	}
	switch {
	case t.isKind("sliding_window_pattern", '"'): // "LLLG", repeated
		letters := t.text("sliding_window_pattern", "")
		full = func(i int) bool { return letters != "" && letters[i%len(letters)] != 'L' }
	case t.has("sliding_window_pattern"):
		full = every(t.count("sliding_window_pattern", 0, mostLayers))
	case t.has("_sliding_window_pattern"):
		full = every(t.count("_sliding_window_pattern", 0, mostLayers))
	case t.has("global_attn_every_n_layers") && h.row.full != nil && !h.row.full(0):
		full = every(t.count("global_attn_every_n_layers", 0, mostLayers))
	case t.has("global_attn_every_n_layers"):
		full = leading(t.count("global_attn_every_n_layers", 0, mostLayers))
	case t.has("full_attention_interval"):
		full = every(t.count("full_attention_interval", 0, mostLayers))
	case t.has("layer_group_size"): // an incomplete last group has full attention
		n := t.count("layer_group_size", 0, mostLayers)
		full = func(i int) bool { return n > 0 && ((i+1)%n == 0 || i >= h.count/n*n) }
	}
	if h.row.layers == compressed {
		for i := range h.count {
			name := heavilyLayer
			if i > 2 && i%2 == 1 {
				name = sparseLayer
			}
			types = append(types, name)
		}
		return types
	}
	if full == nil {
		return nil
	}
	for i := range h.count {
		name := rest
		if full(i) {
			name = fullLayer
		}
		types = append(types, name)
	}
	if h.row.lastFull && len(types) > 0 {
		types[len(types)-1] = fullLayer
	}
	return types
}

// rotatingLayers reads which layers rotate; nil is all.
func (h *hfReader) rotatingLayers() (list []bool) {
	t := h.text
	for _, key := range []string{"no_rope_layers", "use_rope_layers"} { // both are 1 for a layer that rotates
		if list = t.flags(key); len(list) > 0 {
			t.use("no_rope_layer_interval")
			break
		}
	}
	if len(list) == 0 && h.row.layers == someRotate {
		rotates := every(t.count("no_rope_layer_interval", 4, mostLayers))
		for i := range h.count {
			list = append(list, !rotates(i))
		}
	}
	if bases := t.numbers("layer_rope_theta"); len(bases) > 0 { // 0 is for layers that do not rotate
		list, h.bases = nil, bases
		for _, base := range bases {
			list = append(list, base != 0)
		}
	}
	if t.isKind("rope_theta", '[') {
		h.bases = t.numbers("rope_theta")
	}
	h.fractions = t.numbers("partial_rotary_factors")
	return list
}

// setTypes makes the configurations of all layer types.
func (h *hfReader) setTypes() {
	names := slices.Clone(h.types)
	if h.nested {
		for key := range h.params.values {
			if !slices.Contains(names, key) && (h.params.isKind(key, '{') || string(h.params.values[key]) == "null") && h.row.layers != compressed {
				names = append(names, key)
			}
		}
	}
	apart := h.nested || h.row.layers != sameLayers && h.row.layers != someRotate ||
		h.types != nil && (len(h.bases) > 0 || len(h.fractions) > 0 || h.text.has("yarn_only_types"))
	for _, name := range names {
		apart = apart || slices.Contains(withoutRotation, name)
	}
	if !apart {
		h.out.setType("", h.firstOf(""))
		return
	}
	switch {
	case len(names) == 0 && h.row.layers == compressed:
		names = []string{slidingLayer, sparseLayer, heavilyLayer}
	case len(names) == 0 && h.row.layers == linearRotates:
		names = []string{fullLayer, linearLayer}
	case len(names) == 0:
		names = []string{fullLayer, slidingLayer}
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		h.out.setType(name, h.firstOf(name))
	}
	h.out.setShared(h.row.layers == linearRotates)
}

// firstOf makes the configuration of a type, with the numbers of its first layer that
// rotates, where layers have their own.
func (h *hfReader) firstOf(layerType string) Config {
	for i := range h.count {
		if layerType != "" && (i >= len(h.types) || h.types[i] != layerType) || i < len(h.rotates) && !h.rotates[i] {
			continue
		}
		return h.layerConfig(layerType, i)
	}
	return h.typeConfig(layerType)
}

// layerConfig makes the configuration of layer i from that of its type and its own
// numbers.
func (h *hfReader) layerConfig(layerType string, i int) Config {
	if i < len(h.bases) {
		h.base = h.bases[i]
	}
	if i < len(h.fractions) {
		h.fraction = h.fractions[i]
	}
	cfg := h.typeConfig(layerType)
	h.base, h.fraction = 0, 0
	return cfg
}

// setLayers makes the configuration of each layer from those of the types.
func (h *hfReader) setLayers() {
	type own struct {
		name           string
		base, fraction float64
	}
	made := map[own]Config{} // of layers with numbers of their own
	for i := range h.count {
		name := ""
		if h.types != nil {
			name = h.types[i]
		}
		cfg, ok := h.out.configs[name]
		if !ok {
			if cfg, ok = h.out.configs[""]; !ok { // types that nothing tells
				h.out.layers = nil
				return
			}
		}
		if h.row.prefix && i < h.text.count("first_k_dense_replace", 0, mostLayers) && h.text.count("prefix_dense_sliding_window_pattern", 1, mostLayers) == 1 {
			cfg = h.out.configs[slidingLayer]
		}
		if i < len(h.rotates) && !h.rotates[i] {
			cfg = Config{None: true, HeadDim: cfg.HeadDim}
		}
		if !cfg.None && (i < len(h.bases) || i < len(h.fractions)) {
			o := own{name: name}
			if i < len(h.bases) {
				o.base = h.bases[i]
			}
			if i < len(h.fractions) {
				o.fraction = h.fractions[i]
			}
			if cfg, ok = made[o]; !ok {
				cfg = h.layerConfig(name, i)
				made[o] = cfg
			}
		}
		h.out.layers = append(h.out.layers, cfg)
	}
	h.out.alike = len(h.out.Types) == 0 && !slices.ContainsFunc(h.out.layers, func(cfg Config) bool { return !sameConfig(cfg, h.out.configs[""]) })
}

func sameConfig(a, b Config) bool { return reflect.DeepEqual(a, b) }

// raw decodes what stands in a section under a key.
func (s *section) raw(key string) (v any) {
	if at := s.find(key); at != nil {
		_ = json.Unmarshal(at.values[key], &v) // it was decoded before
	}
	return v
}
