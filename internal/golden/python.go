package golden

import (
	"encoding/json"
	"regexp"
	"strings"
)

var literals = regexp.MustCompile(`\b(True|False|None|inf)\b|float\('inf'\)`)

// Python decodes the Python literal of a metadata string, a dict as a rule, into v;
// an infinity becomes the largest float64. It fails the test where the key is
// missing or v lacks a member.
func (f *File) Python(key string, v any) {
	f.t.Helper()
	text, ok := f.meta(key)
	if !ok {
		f.t.Fatalf("no metadata %q", key)
	}
	text = literals.ReplaceAllStringFunc(text, func(s string) string {
		return map[string]string{"True": "true", "False": "false", "None": "null"}[s] + map[bool]string{true: "1.7976931348623157e308"}[strings.Contains(s, "inf")]
	})
	text = strings.NewReplacer("'", `"`, "(", "[", ")", "]", ",)", "]").Replace(text)
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		f.t.Fatalf("metadata %q: %v", key, err)
	}
}
