package rope

// latent tells whether a layer type has latent attention (MLA), whose heads keep the
// part that rotates apart.
func (h *hfReader) latent(layerType string) bool {
	t := h.text
	switch {
	case h.row.layers == compressed, h.row.layers == linearRotates && layerType == linearLayer:
		return false
	case !t.boolean("use_mla", true), t.has("qk_rope_head_dim") && t.integer("qk_rope_head_dim", 0) == 0:
		return false
	}
	_, known := findModel(h.out.ModelType)
	return h.row.rope > 0 || !known && t.has("qk_rope_head_dim")
}

// headDim is the width of a head of a layer type.
func (h *hfReader) headDim(layerType string) int {
	t := h.text
	if h.latent(layerType) {
		return t.count("qk_rope_head_dim", h.row.rope, maxWidth)
	}
	keys := []string{"head_dim", "kv_channels", "attention_head_dim"}
	switch {
	case h.row.split:
		keys = nil
	case layerType == fullLayer && (t.has("global_head_dim") || h.row.global != 0):
		return t.count("global_head_dim", h.row.global, maxWidth)
	case layerType == slidingLayer:
		keys = append([]string{"swa_head_dim"}, keys...)
	}
	for _, key := range keys {
		if d := t.count(key, 0, maxWidth); d != 0 {
			return d
		}
	}
	if h.row.head != 0 {
		return h.row.head
	}
	return h.ratio()
}

// ratio is the width of the model over the number of heads.
func (h *hfReader) ratio() int {
	t := h.text
	number := func(def int, keys ...string) (string, int64) {
		for _, key := range keys {
			if t.has(key) {
				return key, t.integer(key, 0)
			}
		}
		return keys[0], int64(def)
	}
	width, n := number(h.row.hidden, "hidden_size", "n_embd", "d_model", "n_embed")
	heads, of := number(h.row.heads, "num_attention_heads", "n_head", "n_heads", "decoder_num_attention_heads")
	switch {
	case !t.has(width) && n == 0, !t.has(heads) && of == 0:
		t.fail(configErrorf("config.json: neither head_dim nor hidden_size and num_attention_heads are there"))
		return 0
	case of <= 0 || n < of || n/of > maxWidth:
		t.fail(configErrorf("config.json: %s is %d and %s is %d, want heads of 1 to %d features", t.path(width), n, t.path(heads), of, maxWidth))
		return 0
	}
	return int(n / of)
}

// layout is that of a layer type.
func (h *hfReader) layout(layerType string) Layout {
	if h.row.layers == linearRotates && layerType == linearLayer {
		return Half
	}
	if h.row.rope > 0 && !h.latent(layerType) && h.row.layers != linearRotates { // DeepSeek's models without latent attention
		return Half
	}
	interleaved := h.row.layout == Interleaved
	for _, key := range []string{"rope_interleave", "rope_interleaved", "rotary_emb_interleaved"} {
		interleaved = h.text.boolean(key, interleaved)
	}
	if interleaved {
		return Interleaved
	}
	return Half
}

// baseKeys and localKeys are the names of the base, and of that of sliding layers.
var (
	baseKeys  = []string{"rope_theta", "rotary_emb_base", "global_rope_theta", "rope_freq_constant", "rotary_base"}
	localKeys = []string{"rope_local_base_freq", "local_rope_theta", "swa_rope_theta"}
)

// baseOf is the base of a layer type, whose parameters are p.
func (h *hfReader) baseOf(layerType string, p *section) float64 {
	t := h.text
	if h.base != 0 {
		return h.base
	}
	places := []place{{p, "rope_theta"}}
	if h.nested && p.byType {
		places = append(places, place{h.params, "rope_theta"})
	}
	def := or(h.row.base, 10000)
	if h.compat != V5 {
		def = or(h.row.older, def)
	}
	keys := baseKeys
	switch {
	case h.row.layers == localBase && layerType == slidingLayer:
		keys, def = localKeys, or(h.row.local, 10000)
	case h.row.layers == compressed && layerType != slidingLayer:
		keys, def = []string{"compress_rope_theta"}, h.row.local
	}
	for _, key := range keys {
		places = append(places, place{t, key})
	}
	if t.isKind("attn_config", '{') {
		places = append(places, place{t.sub("attn_config"), "rope_theta"})
	}
	if t.isKind("rotary", '{') { // InternLM
		places = append(places, place{t.sub("rotary"), "base"})
	}
	t.pass("rope_max_length") // OpenELM's max_position_embeddings
	base := firstNumber(def, places...)
	if h.row.ratio { // ChatGLM, whose original_rope has no effect
		t.use("original_rope")
		base *= t.above("rope_ratio", 1)
	}
	return base
}

// fractionOf is how much of a head rotates in a layer type, whose parameters are p.
func (h *hfReader) fractionOf(p *section) float64 {
	if h.fraction != 0 {
		return h.fraction
	}
	within := []place{{p, "partial_rotary_factor"}}
	if h.nested && p.byType {
		within = append(within, place{h.params, "partial_rotary_factor"})
	}
	var beside []place
	for _, key := range []string{"partial_rotary_factor", "rotary_pct", "rope_pct", "rope_percent", "rotary_emb_fraction"} {
		beside = append(beside, place{h.text, key})
	}
	places := append(within, beside...)
	if h.compat != V5 {
		places = append(beside, within...)
	}
	return firstNumber(or(h.row.fraction, 1), places...)
}

// rotaryDim is how many features of a head rotate.
func (h *hfReader) rotaryDim(layerType, kind string, headDim int, fraction float64) int {
	t := h.text
	if kind == "proportional" {
		return headDim
	}
	if h.latent(layerType) { // all of the part that is kept apart
		t.use("partial_rotary_factor", "rotary_dim")
		return headDim
	}
	if h.row.layers == compressed && !t.has("partial_rotary_factor") {
		return t.count("qk_rope_head_dim", h.row.rotary, maxWidth)
	}
	if h.fraction == 0 {
		for _, key := range []string{"rotary_dim", "attn_rotary_emb"} {
			if d := t.count(key, 0, maxWidth); d != 0 {
				return d
			}
		}
		if _, null := t.values["rotary_dim"]; h.row.rotary != 0 && h.row.layers != compressed && !null {
			return h.row.rotary
		}
	}
	return int(float64(headDim) * fraction)
}
