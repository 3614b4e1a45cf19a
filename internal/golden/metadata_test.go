package golden

import (
	"fmt"
	"strings"
	"testing"

	"github.com/subquad/subquad/internal/weights"
)

func opened(t *testing.T, metadata map[string]string) *File {
	return &File{t: t, path: "folder/file.safetensors", file: &weights.File{Metadata: metadata}, read: map[string]bool{}, told: map[string]bool{}}
}

// A key that no test read is reported, by file, key and value, whatever read the others.
func TestUnreadMetadata(t *testing.T) {
	f := opened(t, map[string]string{
		"op": "attention.exact", "seed": "1", "official_float32_maxdiff_logits": "1e-6", "alignment": "bottom right", // for readers
		"window": "3", "atol": "1e-5", "rtol": "0", "Sq": "4", "config": `{"a": 1}`, "python": "{'a': 1}",
		"lens": "[3, 5]", "margin": "2.1e-04 of the largest", "cases": "c0. r=1", "inputs": `["x"]`, "scale": "0.5", "case.a": "1",
	})
	reads := []struct {
		key  string
		read func()
	}{
		{"window", func() { f.Meta("window") }},
		{"Sq", func() { f.Sizes(map[string]int{"Sq": 4, "Sk": 5}) }},
		{"config", func() { f.Config("config", &struct{ A int }{}) }},
		{"python", func() { f.Python("python", &struct{ A int }{}) }},
		{"lens", func() { f.CompareMeta("lens", []int{3, 5}) }},
		{"margin", func() {
			if v := f.Margin("margin"); v != 2.1e-4 {
				t.Errorf("a margin of %v", v)
			}
		}},
		{"inputs", func() { f.Inputs() }},
		{"scale", func() { f.Scale() }},
		{"case.a", func() { f.Meta("case." + f.Keys("case.")[0]) }},
	}
	for _, r := range reads {
		has := func() bool {
			text := strings.Join(f.unread(), "\n")
			return strings.Contains(text, fmt.Sprintf("file.safetensors: metadata %s = %q was not read", r.key, f.file.Metadata[r.key]))
		}
		if !has() {
			t.Errorf("%s is not missed", r.key)
		}
		if r.read(); has() {
			t.Errorf("%s is missed after it was read", r.key)
		}
	}
	if left := f.unread(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if isInformative("ssm.delta", "alignment") {
		t.Error("a key that is informative for one operation is so for all")
	}
}

// A file may lack any expected value, and then needs no tolerance.
func TestLackingExpected(t *testing.T) {
	f := opened(t, map[string]string{"op": "attention.exact"})
	f.Compare("out", []float32{1})
	f.Compare64("lse", nil)
	f.CompareInts("ids", []int64{1})
	if w := f.Width("out", 7); w != 7 {
		t.Errorf("a missing tensor is %d wide, want 7", w)
	}
}

// The prose narrows the tolerance of the numbers, never widens it.
func TestStrict(t *testing.T) {
	f := opened(t, map[string]string{"atol": "2e-05", "rtol": "1e-05", "tol": "f32 kernel: atol 1e-5 rtol 1e-4 on out, 2e-5 on lse"})
	if got, want := f.Strict(), (Tolerance{Abs: 1e-5, Rel: 1e-5}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// Every operation and every reason of the table is one.
func TestInformative(t *testing.T) {
	for op, keys := range informative {
		if owners[op] == "" && op != "" {
			t.Errorf("no operation %q", op)
		}
		for key, why := range keys {
			if why == "" {
				t.Errorf("%s %s has no reason", op, key)
			}
		}
	}
}
