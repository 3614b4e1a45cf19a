package weights

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Keys are all keys of a configuration, for checks that name them. A path goes through
// objects by dots: "layer.order". A key that is absent or null is never wrong: it stands
// for what its reader takes by default.
type Keys map[string]any

// ReadKeys decodes a configuration as DecodeConfig does.
func ReadKeys(text []byte) (Keys, error) {
	var k Keys
	err := DecodeConfig(text, &k)
	return k, err
}

// value returns what stands at a path, nil where nothing does.
func (k Keys) value(path string) any {
	var at any = map[string]any(k)
	for name := range strings.SplitSeq(path, ".") {
		object, ok := at.(map[string]any)
		if !ok {
			return nil
		}
		at = object[name]
	}
	return at
}

// Given tells whether a path has a value other than null.
func (k Keys) Given(path string) bool { return k.value(path) != nil }

// Only returns an error unless a path has one of values, which are bool, float64 or string,
// or an empty list for a []any: those that are computed, where others would change results.
// 1 and 0 may stand for truth values, as in Python.
func (k Keys) Only(path string, values ...any) error {
	v := k.value(path)
	if v == nil {
		return nil
	}
	for _, want := range values {
		if list, ok := v.([]any); ok {
			if _, same := want.([]any); same && len(list) == 0 {
				return nil
			}
			continue
		}
		if _, ok := v.(map[string]any); ok {
			continue
		}
		if _, ok := want.([]any); !ok && v == want || want == true && v == 1.0 || want == false && v == 0.0 {
			return nil
		}
	}
	var wants []string
	for _, want := range values {
		wants = append(wants, shown(want))
	}
	return fmt.Errorf("%s is %s, and only %s is computed", path, shown(v), strings.Join(wants, " or "))
}

// Range returns an error unless all paths have numbers from least to most.
func (k Keys) Range(least, most float64, paths ...string) error {
	for _, path := range paths {
		v := k.value(path)
		if n, ok := v.(float64); v != nil && !(ok && n >= least && n <= most) {
			return fmt.Errorf("%s is %s, want a number from %v to %v", path, shown(v), least, most)
		}
	}
	return nil
}

// Counts returns an error unless all paths have whole numbers from 0 to 2^31-1.
func (k Keys) Counts(paths ...string) error {
	for _, path := range paths {
		v := k.value(path)
		if n, ok := v.(float64); v != nil && !(ok && n >= 0 && n <= math.MaxInt32 && n == math.Trunc(n)) {
			return fmt.Errorf("%s is %s, want a whole number from 0 to %d", path, shown(v), math.MaxInt32)
		}
	}
	return nil
}

// shown returns a value as JSON, the beginning of it where it is long.
func shown(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	if slices.Contains([]string{`"NaN"`, `"Infinity"`, `"-Infinity"`}, string(text)) {
		text = text[1 : len(text)-1]
	}
	const most = 60
	if len(text) > most {
		return string(text[:most]) + "..."
	}
	return string(text)
}
