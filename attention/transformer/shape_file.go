package transformer

import (
	"encoding/json"
	"math"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/weights"
)

// section is an object of a config.json. A null stands for a key that is absent. The first
// error stays in err, which is that of all sections of a file.
type section struct {
	values map[string]json.RawMessage
	err    *error
}

func newSection(text []byte) (section, error) {
	s := section{err: new(error)}
	if err := weights.DecodeConfig(text, &s.values); err != nil {
		return s, check.Errorf(ErrConfig, "transformer: config.json: %v", err)
	}
	return s, nil
}

func (s section) fail(format string, args ...any) {
	if *s.err == nil {
		*s.err = check.Errorf(ErrConfig, "transformer: config.json: "+format, args...)
	}
}

// has tells whether a key has a value, null whether it has none in so many words.
func (s section) has(key string) bool  { v := s.values[key]; return v != nil && string(v) != "null" }
func (s section) null(key string) bool { return string(s.values[key]) == "null" }

// sub returns the object of a key, empty where there is none.
func (s section) sub(key string) section {
	t := section{err: s.err}
	s.decode(key, &t.values)
	return t
}

// decode sets v to what a key says, if it says anything.
func (s section) decode(key string, v any) {
	if !s.has(key) {
		return
	}
	if err := weights.DecodeConfig(s.values[key], v); err != nil {
		s.fail("%s: %v", key, err)
	}
}

// text, flag, number and count return what a key says, or otherwise.
func (s section) text(key, otherwise string) string {
	s.decode(key, &otherwise)
	return otherwise
}

func (s section) flag(key string, otherwise bool) bool {
	s.decode(key, &otherwise)
	return otherwise
}

// number must be finite, and above 0.
func (s section) number(key string, otherwise float64) float32 {
	n := weights.Number(otherwise)
	s.decode(key, &n)
	if x := float64(n); s.has(key) && !(float32(x) > 0 && x <= math.MaxFloat32) {
		s.fail("%s is %v, want a finite number above 0, in float32", key, x)
	}
	return float32(n)
}

// count must be a whole number, 0 to most.
func (s section) count(key string, otherwise, most int) int {
	n := weights.Number(otherwise)
	s.decode(key, &n)
	if x := float64(n); !(x >= 0 && x <= float64(most)) || x != math.Trunc(x) {
		s.fail("%s is %v, want a whole number, 0 to %d", key, x, most)
		return otherwise
	}
	return int(n)
}

// orNone is count of a key whose null says that there is none of something, and not what
// stands where the key is not there.
func (s section) orNone(key string, otherwise, none, most int) int {
	if s.null(key) {
		return none
	}
	return s.count(key, otherwise, most)
}

// must is count of a key that must be there, and not 0.
func (s section) must(key string, most int) int {
	n := s.count(key, 0, most)
	if n == 0 {
		s.fail("no %s, want 1 to %d", key, most)
		return 1
	}
	return n
}

// either returns the first of two keys that is there, else the first.
func (s section) either(a, b string) string {
	if !s.has(a) && s.has(b) {
		return b
	}
	return a
}

// counts is a list of count.
func (s section) counts(key string, most int) []int {
	var numbers []weights.Number
	s.decode(key, &numbers)
	var list []int
	for i, n := range numbers {
		if x := float64(n); !(x >= 0 && x <= float64(most)) || x != math.Trunc(x) {
			s.fail("%s[%d] is %v, want a whole number, 0 to %d", key, i, x, most)
			return nil
		}
		list = append(list, int(n))
	}
	return list
}

// tokens reads a token or a list of them.
func (s section) tokens(key string) (list []int32) {
	if !s.has(key) {
		return nil
	}
	if s.values[key][0] != '[' {
		return []int32{int32(s.count(key, 0, math.MaxInt32))}
	}
	for _, id := range s.counts(key, math.MaxInt32) {
		list = append(list, int32(id))
	}
	return list
}
