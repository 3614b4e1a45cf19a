package rope

import (
	"encoding/json"
	"math"
	"sort"
)

// scheme makes the scheme of a rope type.
func (h *hfReader) scheme(kind string, p *section, fraction float64) Scheme {
	longest := h.out.MaxPosition
	switch kind {
	case "linear":
		return Linear{Factor: p.required("factor")}
	case "dynamic":
		return DynamicNTK{Factor: p.required("factor"), MaxPosition: longest}
	case "proportional":
		return Proportional{Fraction: fraction, Factor: p.above("factor", 1)}
	case "llama3":
		return Llama3{Factor: p.required("factor"), Original: h.originalLength(p),
			LowFreqFactor: p.required("low_freq_factor"), HighFreqFactor: p.required("high_freq_factor")}
	case "yarn":
		s := YaRN{Original: h.originalLength(p), AttentionFactor: p.above("attention_factor", 0),
			BetaFast: p.number("beta_fast", 0), BetaSlow: p.number("beta_slow", 0)}
		if h.compat < V448 {
			s.MScale, s.MScaleAllDim, s.NoTruncate = p.number("mscale", 0), p.number("mscale_all_dim", 0), !p.boolean("truncate", true)
		} else {
			s.Original = longest
		}
		ratio := float64(longest) / float64(s.Original)
		switch {
		case h.compat == V4 && p.has(originalKey), h.compat == V5 && !p.has("factor") && string(p.values["factor"]) == "null":
			s.Factor = ratio
		default:
			s.Factor = p.required("factor")
		}
		return s
	case "longrope", "su":
		s := LongRoPE{Short: p.numbers("short_factor"), Long: p.numbers("long_factor"), Original: h.originalLength(p),
			AttentionFactor: p.above("attention_factor", 0)}
		for key, list := range map[string][]float64{"short_factor": s.Short, "long_factor": s.Long} {
			if list == nil {
				p.missing(key)
			}
		}
		switch {
		case h.compat != V5 && h.top.has(originalKey):
			s.Original = h.top.integer(originalKey, 0)
			s.Factor = float64(longest) / float64(s.Original)
		case h.compat != V5:
			s.Original, s.Factor = longest, p.required("factor")
		case p.has("factor"):
			s.Factor = p.above("factor", 1)
		default:
			s.Factor = float64(longest) / float64(s.Original)
		}
		if h.compat == V443 {
			if s.Factor <= 1 {
				s.Long = s.Short
			}
			s.Short = nil
		}
		return s
	}
	return Plain{}
}

const originalKey = "original_max_position_embeddings"

// originalLength is the longest sequence of the training: of the rope parameters,
// or in v5, where they are for all layers, of the file itself.
func (h *hfReader) originalLength(p *section) int64 {
	n := p.integer(originalKey, h.out.MaxPosition)
	if h.compat == V5 && !p.perLayer {
		n = h.top.integer(originalKey, n)
	}
	return n
}

// section is an object of a config.json. The first error is kept in the root.
type section struct {
	name   string
	values map[string]json.RawMessage
	root   *section
	err    error // of the root
	// perLayer marks rope parameters of one layer type.
	perLayer bool
}

func newSection(name string, data []byte) (*section, error) {
	s := &section{name: name}
	s.root = s
	if err := json.Unmarshal(data, &s.values); err != nil {
		return nil, configErrorf("config.json: %s%v", prefixed(name, ": "), err)
	}
	if s.values == nil {
		return nil, configErrorf("config.json: %sis null, want an object", prefixed(name, " "))
	}
	return s, nil
}

func prefixed(name, separator string) string {
	if name == "" {
		return ""
	}
	return name + separator
}

func (s *section) path(key string) string { return prefixed(s.name, ".") + key }

func (s *section) fail(err error) {
	if s.root.err == nil {
		s.root.err = err
	}
}

// has tells whether a key is there and not null.
func (s *section) has(key string) bool {
	v, ok := s.values[key]
	return ok && string(v) != "null"
}

func (s *section) section(key string) (*section, error) {
	sub, err := newSection(s.path(key), s.values[key])
	if err == nil {
		sub.root = s.root
	}
	return sub, err
}

// nested tells whether the section has parameters for each layer type.
func (s *section) nested() bool {
	for _, v := range s.values {
		if len(v) == 0 || v[0] != '{' {
			return false
		}
	}
	return len(s.values) > 0
}

// read decodes a key into a T, or returns def where it is not there.
func read[T any](s *section, key string, def T, want string) T {
	if !s.has(key) {
		return def
	}
	var v T
	if err := json.Unmarshal(s.values[key], &v); err != nil {
		text := s.values[key]
		if len(text) > 40 {
			text = append(text[:37:37], "..."...)
		}
		s.fail(configErrorf("config.json: %s is %s, want %s", s.path(key), text, want))
		return def
	}
	return v
}

func (s *section) number(key string, def float64) float64 { return read(s, key, def, "a number") }
func (s *section) boolean(key string, def bool) bool      { return read(s, key, def, "true or false") }
func (s *section) text(key, def string) string            { return read(s, key, def, "a string") }
func (s *section) numbers(key string) []float64 {
	return read[[]float64](s, key, nil, "a list of numbers")
}
func (s *section) strings(key string) []string {
	return read[[]string](s, key, nil, "a list of strings")
}

// integer reads a whole number up to 2^53, which may be written as 4096.0.
func (s *section) integer(key string, def int64) int64 {
	v := s.number(key, float64(def))
	if v != math.Trunc(v) || v < 0 || v > 1<<53 {
		s.fail(configErrorf("config.json: %s is %v, want a whole number from 0 on", s.path(key), v))
		return def
	}
	return int64(v)
}

// width is integer for a number of features.
func (s *section) width(key string) int {
	n := s.integer(key, 0)
	if n > maxWidth {
		s.fail(configErrorf("config.json: %s is %d, want at most %d", s.path(key), n, maxWidth))
		return 0
	}
	return int(n)
}

// above reads a number that must be more than 0.
func (s *section) above(key string, def float64) float64 {
	v := s.number(key, def)
	if s.has(key) && !(v > 0) {
		s.fail(configErrorf("config.json: %s is %v, want a number above 0", s.path(key), v))
	}
	return v
}

// required is above for a key that must be there.
func (s *section) required(key string) float64 {
	if !s.has(key) {
		s.missing(key)
	}
	return s.above(key, 1)
}

func (s *section) missing(key string) {
	keys := []string{}
	for k := range s.values {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	s.fail(configErrorf("config.json: %s is missing; the keys are %q", s.path(key), keys))
}
