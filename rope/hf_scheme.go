package rope

import (
	"slices"
	"strings"
)

// ropeTypes are the rope types that are known; "mrope" is "default" with sections.
var ropeTypes = []string{"default", "dynamic", "linear", "llama3", "longrope", "mrope", "proportional", "su", "yarn"}

const originalKey = "original_max_position_embeddings"

// ropeType returns the rope type of a set of parameters.
func (h *hfReader) ropeType(p *section) string {
	key := "rope_type"
	if !p.has(key) {
		key = "type"
	}
	kind := p.text(key, "default")
	if !slices.Contains(ropeTypes, kind) {
		p.fail(configErrorf("config.json: %s is %q, want one of \"%s\"", p.path(key), kind, strings.Join(ropeTypes, `", "`)))
	}
	p.use("max_position_embeddings")                       // which ministral3's repeat
	if p.text("type", kind) != kind && kind != "default" { // the newer name counts
		delete(p.root.used, p.path("type"))
	}
	if kind == "yarn" && h.row.original != 0 { // Phi-3's first name for LongRoPE
		kind = "longrope"
	}
	return kind
}

// giveScheme gives a configuration its scheme.
func (h *hfReader) giveScheme(cfg *Config, kind string, p *section, fraction float64) {
	if kind == "dynamic" && p.has("alpha") && h.row.alpha { // a base that is fixed (Hunyuan)
		p.use("factor")
		cfg.Base = ntkBase(cfg.Base, p.above("alpha", 1), cfg.RotaryDim)
		cfg.Scheme = Plain{}
		return
	}
	cfg.Scheme = h.scheme(kind, p, fraction)
	if rotary := h.text; kind == "default" && rotary.isKind("rotary", '{') { // InternLM
		rotary = rotary.sub("rotary")
		switch kind := rotary.text("type", "origin"); kind {
		case "origin":
		case "dynamic":
			cfg.Scheme = DynamicNTK{Factor: rotary.above("scaling_factor", 1), MaxPosition: h.out.MaxPosition}
		default:
			rotary.fail(configErrorf("config.json: %s is %q, want origin or dynamic", rotary.path("type"), kind))
		}
	}
	if s, ok := cfg.Scheme.(YaRN); ok && h.row.layers == compressed && !p.has("attention_factor") {
		s.AttentionFactor = 1
		cfg.Scheme = s
	}
	if factor := h.text.number("rotary_scaling_factor", 0); h.row.dynamic && factor > 0 && kind == "default" {
		cfg.Scheme = DynamicNTK{Factor: factor, MaxPosition: h.text.integer("max_trained_positions", 2048)}
	} else if factor != 0 {
		delete(h.text.root.used, h.text.path("rotary_scaling_factor"))
	}
}

// scheme makes the scheme of a rope type.
func (h *hfReader) scheme(kind string, p *section, fraction float64) Scheme {
	longest := h.out.MaxPosition
	switch kind {
	case "linear":
		return Linear{Factor: p.required("factor")}
	case "dynamic":
		p.use(originalKey)
		return DynamicNTK{Factor: p.required("factor"), MaxPosition: longest}
	case "proportional":
		return Proportional{Fraction: fraction, Factor: p.above("factor", 1)}
	case "llama3":
		return Llama3{Factor: p.required("factor"), Original: h.originalLength(p),
			LowFreqFactor: p.required("low_freq_factor"), HighFreqFactor: p.required("high_freq_factor")}
	case "yarn":
		return h.yarn(p, longest)
	case "longrope", "su":
		return h.longRoPE(p, longest)
	}
	return Plain{}
}

func (h *hfReader) yarn(p *section, longest int64) Scheme {
	s := YaRN{Original: h.originalLength(p), AttentionFactor: p.above("attention_factor", 0),
		BetaFast: p.number("beta_fast", 0), BetaSlow: p.number("beta_slow", 0)}
	if h.compat < V448 {
		s.MScale, s.MScaleAllDim, s.NoTruncate = p.number("mscale", 0), p.number("mscale_all_dim", 0), !p.boolean("truncate", true)
	} else {
		s.Original = longest
		p.use("mscale", "mscale_all_dim", "truncate")
	}
	ratio := float64(longest) / float64(s.Original)
	switch {
	case h.compat == V4 && p.has(originalKey):
		s.Factor = ratio
		p.use("factor")
	case h.compat == V5 && !p.has("factor") && string(p.values["factor"]) == "null":
		s.Factor = ratio
	default:
		s.Factor = p.required("factor")
	}
	return s
}

func (h *hfReader) longRoPE(p *section, longest int64) Scheme {
	s := LongRoPE{Short: p.numbers("short_factor"), Long: p.numbers("long_factor"), Original: h.originalLength(p),
		AttentionFactor: p.above("attention_factor", 0)}
	for key, list := range map[string][]float64{"short_factor": s.Short, "long_factor": s.Long} {
		if list == nil {
			p.missing(key)
		}
	}
	switch {
	case h.compat != V5 && h.text.has(originalKey):
		s.Original = h.text.integer(originalKey, 0)
		s.Factor = float64(longest) / float64(s.Original)
		p.use("factor")
	case h.compat != V5:
		s.Original, s.Factor = longest, p.required("factor")
	case p.has("factor"):
		s.Factor = p.above("factor", 1)
	default:
		s.Factor = float64(longest) / float64(s.Original)
	}
	if p.has("short_mscale") && p.number("short_mscale", 0) == p.number("long_mscale", 0) { // Phi-3.5-MoE
		s.AttentionFactor = p.above("short_mscale", 0)
	}
	if h.compat == V443 {
		if s.Factor <= 1 {
			s.Long = s.Short
		}
		s.Short = nil
	}
	return s
}

// originalLength is the longest sequence of the training: of the rope parameters,
// or in v5, where they are for all layers, of the file itself.
func (h *hfReader) originalLength(p *section) int64 {
	within := p.integer(originalKey, h.out.MaxPosition)
	if h.compat != V5 || p.byType {
		return within
	}
	return h.text.integer(originalKey, or(h.row.original, within))
}
