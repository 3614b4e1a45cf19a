package transformer

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/subquad/subquad/internal/weights"
	"github.com/subquad/subquad/internal/weights/weightstest"
)

// TestHostileConfigs changes every key of every configuration to what it is not: there is
// an error that matches a sentinel, or a model that runs.
func TestHostileConfigs(t *testing.T) {
	values := []string{`null`, `0`, `-1`, `1`, `3`, `1.5`, `1e9`, `1e300`, `NaN`, `"x"`, `[]`, `[-1]`, `[1e12]`, `{}`, `true`, `false`}
	folders, err := filepath.Glob(goldenFolder + "*/config.json")
	must(t, err)
	if len(folders) < 20 {
		t.Fatalf("%d configurations", len(folders))
	}
	for _, name := range append(hybridNames(), qwen35Names...) {
		folders = append(folders, filepath.Join(folderOf(t, name), "config.json"))
	}
	n := 0
	for _, path := range folders {
		text, err := os.ReadFile(path)
		must(t, err)
		dir := filepath.Dir(path)
		weights, err := os.ReadFile(filepath.Join(dir, "model.safetensors"))
		if errors.Is(err, os.ErrNotExist) {
			continue // in several files
		}
		must(t, err)
		var config map[string]json.RawMessage
		must(t, json.Unmarshal([]byte(strings.ReplaceAll(string(text), "Infinity", "1e300")), &config))
		for _, key := range slices.Sorted(maps.Keys(config)) {
			for _, value := range values {
				if n++; testing.Short() && n%17 != 0 {
					continue
				}
				changed := maps.Clone(config)
				changed[key] = json.RawMessage(`"replaced"`)
				whole, err := json.Marshal(changed)
				must(t, err)
				hostile := strings.Replace(string(whole), `"replaced"`, value, 1)
				what := string(config["model_type"]) + ": " + key + ": " + value
				m, err := Read(strings.NewReader(string(weights)), int64(len(weights)), []byte(hostile), Config{Workers: 1})
				switch {
				case err == nil:
					if err := m.Run(t.Context(), &Call{Tokens: []int32{1, 2, 3}, Hidden: zeros(3, m.shape.Dim)}); err != nil {
						t.Errorf("%s: a model that does not run: %v", what, err)
					}
					_ = m.StateBytes(3) + m.ScratchBytes(3)
				case !errors.Is(err, ErrConfig) && !errors.Is(err, ErrCheckpoint):
					t.Errorf("%s: error %v", what, err)
				case !strings.HasPrefix(err.Error(), "transformer: "):
					t.Errorf("%s: error %v does not name the package", what, err)
				}
			}
		}
	}
}

// TestTypeOfText: a text_config that does not say its model type has that of the whole.
func TestTypeOfText(t *testing.T) {
	text, err := os.ReadFile(goldenFolder + "gemma3_wrapped/config.json")
	must(t, err)
	want, err := ParseConfig(text)
	must(t, err)
	got, err := ParseConfig([]byte(strings.Replace(string(text), `"model_type": "gemma3_text",`, "", 1)))
	must(t, err)
	if got.ModelType != "gemma3_text" || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	got, err = ParseConfig([]byte(`{"model_type": "llama", "text_config": {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 9}}`))
	if err != nil || got.ModelType != "llama" {
		t.Errorf("%+v, error %v", got, err)
	}
	if _, err := ParseConfig([]byte(`{"model_type": "llava", "text_config": {}}`)); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), `model_type is "llava"`) {
		t.Errorf("error %v", err)
	}
}

// TestOtherRooms: a configuration of another package's models is told which one reads it.
func TestOtherRooms(t *testing.T) {
	for text, want := range map[string]string{
		`{"model_type": "mamba2"}`:       "package mamba",
		`{"ssm_cfg": {}, "d_model": 8}`:  "package mamba",
		`{"model_type": "rwkv7"}`:        "package rwkv",
		`{"model_type": "hyenadna"}`:     "package dna",
		`{"model_type": "stripedhyena"}`: "package striped",
	} {
		if _, err := ParseConfig([]byte(text)); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v does not name %s", text, err, want)
		}
	}
}

// TestHostileCheckpoints opens checkpoints and configurations that another program has changed.
func TestHostileCheckpoints(t *testing.T) {
	names := append(hybridNames(), "llama", "phi3_longrope")
	if testing.Short() {
		names = append(slices.Sorted(maps.Keys(hybrids))[:3], "llama", "phi3_longrope")
	}
	for _, name := range names {
		dir := folderOf(t, name)
		config, err := os.ReadFile(filepath.Join(dir, "config.json"))
		must(t, err)
		f, err := weights.Open(filepath.Join(dir, "model.safetensors"))
		must(t, err)
		defer f.Close()
		state := weightstest.State{}
		for _, name := range f.Names() {
			data, err := f.Tensor(name).Float32()
			must(t, err)
			state[name] = weightstest.Tensor{Shape: f.Tensor(name).Shape, Data: data}
		}
		weightstest.Mutate(t, state, strings.ReplaceAll(string(config), "Infinity", "1e300"), func(file, config []byte) (func() error, error) {
			m, err := Read(bytes.NewReader(file), int64(len(file)), config, Config{Workers: 1})
			if err != nil {
				return nil, err
			}
			_ = m.StateBytes(3) + m.ScratchBytes(3)
			return func() error {
				return m.Run(t.Context(), &Call{Tokens: []int32{1, 2, 3}, Hidden: zeros(3, m.shape.Dim)})
			}, nil
		})
	}
}
