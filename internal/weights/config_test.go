package weights

import (
	"math"
	"os"
	"path/filepath"
	"testing"
)

// TestDecodeConfig: what Python writes for numbers that JSON has no form for is read where
// a Number stands, an error where another type does, and passed over where nothing does.
func TestDecodeConfig(t *testing.T) {
	inf := math.Inf(1)
	for text, want := range map[string][]float64{
		`{"list": [0.0, Infinity]}`:                                      {0, inf},
		`{"list": [-Infinity,1e3 , NaN]}`:                                {-inf, 1000, math.NaN()},
		`{"list": [0.5, {"__float__": "Infinity"}]}`:                     {0.5, inf},
		`{"list": [{ "__float__" : "-Infinity" }, {"__float__":"NaN"}]}`: {-inf, math.NaN()},
		`{"list":[NaN],"other":{"x": {"__float__": "NaN"}}}`:             {math.NaN()},
		`{"list": [3], "eps": 1, "text": "Infinity \" NaN, -Infinity"}`:  {3},
		`{"unread": Infinity, "list": null}`:                             nil,
		`{"list": ["Infinity"]}`:                                         {inf},
	} {
		var got struct {
			List []Number `json:"list"`
			Eps  float64  `json:"eps"`
			Text string   `json:"text"`
		}
		if err := DecodeConfig([]byte(text), &got); err != nil || len(got.List) != len(want) {
			t.Errorf("%s: %v, error %v", text, got.List, err)
			continue
		}
		for i, v := range want {
			if g := float64(got.List[i]); g != v && !(math.IsNaN(g) && math.IsNaN(v)) {
				t.Errorf("%s: %v, want %v", text, got.List, want)
			}
		}
		if got.Text != "" && got.Text != `Infinity " NaN, -Infinity` {
			t.Errorf("%s: a text became %q", text, got.Text)
		}
	}
	for _, text := range []string{`{"eps": NaN}`, `{"eps": {"__float__": "Infinity"}}`, `{"list": ["wide"]}`, `{"list": [{}]}`, `{"list": [Infinit]}`,
		`{"list": [1e999]}`, `{"eps": Infinity`, `{"text": "Infinity`, `{"text": "NaN\`, `NaN`, ``} {
		var v struct {
			List []Number `json:"list"`
			Eps  float64  `json:"eps"`
			Text string   `json:"text"`
		}
		if err := DecodeConfig([]byte(text), &v); err == nil {
			t.Errorf("%s: %+v without an error", text, v)
		}
	}
}

func FuzzDecodeConfig(f *testing.F) {
	f.Add([]byte(`{"list": [NaN, {"__float__": "-Infinity"}, "NaN\"", -Infinity]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var v struct {
			List []Number `json:"list"`
		}
		_ = DecodeConfig(text, &v)
	})
}

func TestReadConfig(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "model.safetensors")
	if text, err := ReadConfig(path); text != nil || err != nil {
		t.Errorf("%q, error %v", text, err)
	}
	file := filepath.Join(dir, "config.json")
	for _, want := range []string{"", "{}"} {
		if err := os.WriteFile(file, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{path, dir} {
			if text, err := ReadConfig(path); text == nil || string(text) != want || err != nil {
				t.Errorf("%s: %q, error %v", path, text, err)
			}
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(file, 0o700); err != nil {
		t.Fatal(err)
	}
	if text, err := ReadConfig(path); err == nil {
		t.Errorf("of a folder: %q", text)
	}
}
