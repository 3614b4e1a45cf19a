package rope

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"sort"
	"strings"

	"github.com/subquad/subquad/internal/weights"
)

// section is an object of a config.json. The first error, and which keys were read,
// are kept in the root.
type section struct {
	name   string // its path from the top: "", or "text_config.rope_scaling"
	values map[string]json.RawMessage
	root   *section
	outer  *section // has what this one does not say; nil for none
	byType bool     // rope parameters of one layer type

	err  error           // of the root
	used map[string]bool // of the root: paths of keys that count
	done map[string]bool // of the root: paths below which all keys do
}

func newSection(name string, data []byte) (*section, error) {
	s := &section{name: name, used: map[string]bool{}, done: map[string]bool{}}
	s.root = s
	if err := weights.DecodeConfig(data, &s.values); err != nil {
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

// own tells whether the section itself has a key that is not null.
func (s *section) own(key string) bool {
	v, ok := s.values[key]
	return ok && string(v) != "null"
}

// find returns the section that has a key: this one, or the one around it; nil for
// neither. What is about rotation comes from one of the two only.
func (s *section) find(key string) *section {
	switch {
	case s.own(key):
		return s
	case s.outer == nil || key == "model_type" || positional(key) && s.ownPositional():
		return nil
	}
	return s.outer.find(key)
}

func (s *section) ownPositional() bool {
	for key := range s.values {
		if s.own(key) && positional(key) {
			return true
		}
	}
	return false
}

// has tells whether a key is there and not null.
func (s *section) has(key string) bool { return s.find(key) != nil }

// use marks a key as one that counts, and the same key of the sections around, where
// its value is the same.
func (s *section) use(keys ...string) {
	for _, key := range keys {
		at := s.find(key)
		if at == nil {
			continue
		}
		s.root.used[at.path(key)] = true
		for o := at.outer; o != nil; o = o.outer {
			if bytes.Equal(o.values[key], at.values[key]) {
				o.pass(key)
			}
		}
	}
}

// pass marks keys and all that is in them as ones that need not be read.
func (s *section) pass(keys ...string) {
	for _, key := range keys {
		if at := s.find(key); at != nil {
			s.root.done[at.path(key)] = true
		}
	}
}

// sub returns an object within the section, an empty one where there is none.
func (s *section) sub(key string) *section {
	at := s.find(key)
	if at == nil {
		return &section{name: s.path(key), values: map[string]json.RawMessage{}, root: s.root}
	}
	s.use(key)
	sub, err := newSection(at.path(key), at.values[key])
	if err != nil {
		s.fail(err)
		return &section{name: s.path(key), root: s.root}
	}
	sub.root = s.root
	return sub
}

// isKind tells whether a key's value begins with a character: '{', '[', '"'.
func (s *section) isKind(key string, first byte) bool {
	at := s.find(key)
	return at != nil && len(at.values[key]) > 0 && at.values[key][0] == first
}

// read decodes a key into a T, or returns def where it is not there.
func read[T any](s *section, key string, def T, want string) T {
	at := s.find(key)
	if at == nil {
		return def
	}
	s.use(key)
	var v T
	if err := json.Unmarshal(at.values[key], &v); err != nil {
		text := at.values[key]
		if len(text) > 40 {
			text = append(text[:37:37], "..."...)
		}
		s.fail(configErrorf("config.json: %s is %s, want %s", at.path(key), text, want))
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

// flags reads a list of numbers or of true and false as the latter.
func (s *section) flags(key string) (list []bool) {
	for _, v := range read[[]any](s, key, nil, "a list of flags") {
		list = append(list, v == true || v != false && v != 0.0 && v != nil)
	}
	return list
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

// count is integer with a bound: most, or def where the key is not there.
func (s *section) count(key string, def, most int) int {
	n := s.integer(key, int64(def))
	if n > int64(most) {
		s.fail(configErrorf("config.json: %s is %d, want at most %d", s.path(key), n, most))
		return def
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

// place is a key of a section.
type place struct {
	at  *section
	key string
}

// firstNumber returns the first number that is there, or def. Later ones count as read
// where they are the same or stand in another section, which is what it overrides.
func firstNumber(def float64, places ...place) float64 {
	var from *section
	for _, p := range places {
		at := p.at.find(p.key)
		switch {
		case at == nil || at.isKind(p.key, '['):
		case from == nil:
			def, from = at.number(p.key, def), at
		case at != from || at.raw(p.key) == any(def):
			at.use(p.key)
		}
	}
	return def
}

// positional tells whether a key seems to be about positions.
func positional(key string) bool {
	key = strings.ToLower(key)
	switch key {
	case "max_position_embeddings", "qk_nope_head_dim", "qk_rope_head_dim": // widths and lengths
		return false
	case "scaling_factor", "position_encoding_2d", "use_logn_attn":
		return true
	}
	for _, part := range []string{"rotary", "theta", "alibi", "position_embedding", "yarn", "dynamic_ntk"} {
		if strings.Contains(key, part) {
			return true
		}
	}
	for _, word := range strings.FieldsFunc(key, func(r rune) bool { return r < 'a' || r > 'z' }) {
		for _, part := range []string{"rope", "nope"} {
			if at := strings.Index(word, part); at >= 0 && !strings.HasPrefix(word[at:], "ropert") && word != "europe" {
				return true
			}
		}
	}
	return false
}

// unread returns the paths of all keys that seem to be about positions, and of all rope
// parameters, that did not count.
func (s *section) unread(data []byte) (list []string) {
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for key, inner := range v {
				at := prefixed(path, ".") + key
				within := strings.HasPrefix(at, "rope_") || strings.Contains(at, ".rope_")
				if s.done[at] {
					continue
				}
				if inner != nil && !s.used[at] && (positional(key) || within && path != "") {
					if !slices.Contains(list, at) {
						list = append(list, at)
					}
					continue
				}
				walk(at, inner)
			}
		case []any:
			for _, inner := range v {
				walk(path, inner)
			}
		}
	}
	var all any
	if weights.DecodeConfig(data, &all) == nil {
		walk("", all)
	}
	sort.Strings(list)
	return list
}
