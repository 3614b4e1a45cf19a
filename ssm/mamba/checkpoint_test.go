package mamba

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/subquad/subquad/internal/weights/weightstest"
)

func TestLayouts(t *testing.T) {
	s, ids := random(true, 1, 2), tokens(1, 20)
	want, got := zeros(20, vocab), zeros(20, vocab)
	must(t, s.model(t, small).Forward(want, ids))
	hf := func(n string) string { return strings.Replace(n, "embedding.", "embeddings.", 1) }
	for name, rename := range map[string]func(string) string{
		"Hugging Face": hf,
		"wrapped":      func(n string) string { return "module._orig_mod.model." + n },
		"prefixed":     func(n string) string { return "model." + n },
		"bare":         func(n string) string { return strings.TrimPrefix(hf(n), "backbone.") },
	} {
		must(t, state{s.Renamed(rename)}.model(t, small).Forward(got, ids))
		same(t, name, got.Data, want.Data)
	}
	// A head that is the embedding takes no memory of its own.
	tied := state{s.Renamed(func(n string) string { return n })}
	tied.State["lm_head.weight"] = s.State["backbone.embedding.weight"]
	if a, b := tied.model(t, small).Bytes(), s.model(t, small).Bytes(); a != b {
		t.Errorf("%d bytes, want %d", a, b)
	}
	// The head of its own wins over the embedding; foreign tensors are passed over.
	s.State["lm_head.weight"] = weightstest.Tensor{Shape: []int{vocab, dim}, Data: make([]float32, vocab*dim)}
	s.State["global_step"] = weightstest.Tensor{Shape: []int{1}, Data: []float32{1}}
	must(t, s.model(t, small).Forward(got, ids))
	for _, v := range got.Data {
		if v != 0 {
			t.Fatalf("a logit of a head of zeros is %v", v)
		}
	}
}

// TestNorms runs LayerNorm, norms of dt, B and C, and biases of projections.
func TestNorms(t *testing.T) {
	s, ids := random(false, 1), tokens(1, 20)
	plain, other := zeros(20, vocab), zeros(20, vocab)
	must(t, s.model(t, small).Forward(plain, ids))
	for name, cfg := range map[string]Config{"LayerNorm": {LayerNorm: true}, "NormDtBC": {NormDtBC: true}} {
		must(t, s.model(t, cfg).Forward(other, ids))
		if other.Data[0] == plain.Data[0] {
			t.Errorf("%s changes nothing", name)
		}
	}
	s.State["backbone.layers.0.mixer.out_proj.bias"] = weightstest.Tensor{Shape: []int{dim}, Data: tokensAsFloats(dim)}
	must(t, s.model(t, small).Forward(other, ids))
	if other.Data[0] == plain.Data[0] {
		t.Error("a bias changes nothing")
	}
}

func tokensAsFloats(n int) (x []float32) {
	for _, id := range tokens(1, n) {
		x = append(x, float32(id))
	}
	return x
}

func TestCheckpointErrors(t *testing.T) {
	const mixer = "backbone.layers.1.mixer."
	put := func(s state, name string, shape ...int) {
		n := 1
		for _, d := range shape {
			n *= d
		}
		s.State[name] = weightstest.Tensor{Shape: shape, Data: make([]float32, n)}
	}
	for want, change := range map[string]func(s state, c *Config){
		"no tensor backbone.layers.1.mixer.in_proj.weight":                                              func(s state, _ *Config) { delete(s.State, mixer+"in_proj.weight") },
		"no tensor backbone.layers.1.mixer.A_log":                                                       func(s state, _ *Config) { delete(s.State, mixer+"A_log") },
		"no tensor backbone.layers.0.mixer.x_proj.weight":                                               func(s state, _ *Config) { delete(s.State, "backbone.layers.0.mixer.x_proj.weight") },
		"no tensor backbone.norm_f.weight":                                                              func(s state, _ *Config) { delete(s.State, "backbone.norm_f.weight") },
		"no tensor backbone.embedding.weight of two dimensions or more":                                 func(s state, _ *Config) { delete(s.State, "backbone.embedding.weight") },
		"no tensor backbone.layers.1.mlp.fc2.weight":                                                    func(s state, _ *Config) { delete(s.State, "backbone.layers.1.mlp.fc2.weight") },
		"tensor backbone.layers.1.mixer.in_proj.weight has the shape [63 13], want [63 12]":             func(s state, _ *Config) { put(s, mixer+"in_proj.weight", 63, 13) },
		"tensor backbone.layers.1.norm.weight has the shape [13], want [12]":                            func(s state, _ *Config) { put(s, "backbone.layers.1.norm.weight", 13) },
		"tensor backbone.layers.1.mlp.fc1.weight has 3 rows, want an even number":                       func(s state, _ *Config) { put(s, "backbone.layers.1.mlp.fc1.weight", 3, dim) },
		"backbone.layers.1.mixer.: ssm: In has 62 rows, want 63":                                        func(s state, _ *Config) { put(s, mixer+"in_proj.weight", 62, dim) },
		"backbone.norm_f.weight and model.backbone.norm_f.weight are the same tensor":                   func(s state, _ *Config) { put(s, "model.backbone.norm_f.weight", dim) },
		"2 blocks, want Layers = 3":                                                                     func(_ state, c *Config) { c.Layers = 3 },
		"no tensor lm_head.weight, and the configuration says that the embedding does not stand for it": func(_ state, c *Config) { c.Untied = true },
	} {
		s, cfg := random(true, 1, 2), small
		change(s, &cfg)
		if _, err := s.read(cfg); !errors.Is(err, ErrCheckpoint) || !strings.HasPrefix(err.Error(), "mamba: checkpoint: "+want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	for want, cfg := range map[string]Config{
		"mamba: Workers is -1, want 0 to 65536":             {Workers: -1},
		"mamba: Format is 7":                                {Format: 7},
		"mamba: Eps is -1, want a finite number, 0 or more": {Eps: -1},
		"mamba: Words is 25, more than Vocab = 24":          {Words: 25},
		"mamba: DtMin is 2, more than DtMax = 1":            {DtMin: 2, DtMax: 1},
	} {
		if _, err := random(false, 1).read(cfg); !errors.Is(err, ErrConfig) || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	if _, err := Read(bytes.NewReader([]byte("text")), 4, Config{}); !errors.Is(err, ErrCheckpoint) {
		t.Errorf("error %v", err)
	}
}

func TestOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "model.safetensors")
	if _, err := Open(path, Config{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	must(t, os.WriteFile(path, random(false, 2).File(), 0o600))
	config := func(text string) {
		must(t, os.WriteFile(filepath.Join(filepath.Dir(path), "config.json"), []byte(text), 0o600))
	}
	config(`{"d_model": 12, "n_layer": 1, "vocab_size": 20, "pad_vocab_size_multiple": 8, "ssm_cfg": {"layer": "Mamba2", "d_state": 6, "headdim": 8}}`)
	m, err := Open(path, Config{Workers: 1})
	must(t, err)
	if c := m.Config(); c.Vocab != 24 || c.Words != 20 || c.Layers != 1 || c.Workers != 1 || c.Eps != 1e-5 {
		t.Errorf("configuration %+v", c)
	}
	config(`{"attn_layer_idx": [3]}`)
	if _, err = Open(path, Config{}); !errors.Is(err, ErrConfig) {
		t.Errorf("error %v", err)
	}
	config(`{"d_model": 13}`)
	if _, err = Open(path, small); !errors.Is(err, ErrCheckpoint) {
		t.Errorf("error %v", err)
	}
}

func TestParseConfig(t *testing.T) {
	for text, want := range map[string]Config{
		`{}`: {},
		`{"d_model": 768, "n_layer": 24, "vocab_size": 50277, "ssm_cfg": {}, "rms_norm": true, "residual_in_fp32": true, "pad_vocab_size_multiple": 8}`: {
			Dim: 768, Layers: 24, Words: 50277, Vocab: 50280},
		`{"d_model": 768, "n_layer": 24, "vocab_size": 50277, "ssm_cfg": {"layer": "Mamba2", "d_state": 64, "ngroups": 2, "dt_limit": [0.1, 2]}, "rms_norm": false, "pad_vocab_size_multiple": 16}`: {
			Dim: 768, Layers: 24, Words: 50277, Vocab: 50288, States: 64, Groups: 2, DtMin: 0.1, DtMax: 2, LayerNorm: true},
		`{"model_type": "mamba", "hidden_size": 768, "num_hidden_layers": 24, "state_size": 16, "vocab_size": 50280, "layer_norm_epsilon": 1e-05, "use_bias": false}`: {
			Dim: 768, Layers: 24, Words: 50280, States: 16, Eps: 1e-5},
		`{"model_type": "mamba2", "hidden_size": 4096, "head_dim": 64, "n_groups": 8, "state_size": 128, "time_step_limit": [0.0, Infinity], "rms_norm": false, "norm_before_gate": true}`: {
			Dim: 4096, HeadDim: 64, Groups: 8, States: 128},
		`{"model_type": "falcon_mamba", "mixer_rms_eps": 1e-06, "tie_word_embeddings": false}`: {NormDtBC: true, MixerEps: 1e-6, Untied: true},
		`{"tie_embeddings": true}`: {},
		// Silent about groups: 8 in Mamba2Config of transformers 4 and 5, 1 in mamba_ssm, which has no
		// such key; there the zero stands for it.
		`{"model_type": "mamba2", "n_groups": null}`:                                                   {Groups: 8},
		`{"model_type": "mamba2", "ssm_cfg": {"layer": "Mamba2"}}`:                                     {},
		`{"model_type": "mamba2", "n_groups": 1}`:                                                      {Groups: 1},
		`{"model_type": "mamba", "tie_word_embeddings": null}`:                                         {},
		`{"model_type": "falcon_mamba"}`:                                                               {NormDtBC: true},
		`{"model_type": "mamba2", "time_step_limit": [0.5, {"__float__": "Infinity"}], "unread": NaN}`: {Groups: 8, DtMin: 0.5},
		`{"ssm_cfg": {"dt_limit": [0.0, Infinity]}, "initializer_range": {"__float__": "NaN"}}`:        {},
	} {
		got, err := ParseConfig([]byte(text))
		must(t, err)
		if got != want {
			t.Errorf("%s: %+v, want %+v", text, got, want)
		}
	}
	for _, text := range []string{`[`, `{"d_model": "wide"}`, `{"d_model": -4}`, `{"vocab_size": 9000000000000000000, "pad_vocab_size_multiple": 8}`,
		`{"ssm_cfg": {"layer": "Mamba3"}}`, `{"model_type": "jamba"}`, `{"time_step_limit": [1]}`, `{"norm_epsilon": -1}`,
		`{"norm_epsilon": NaN}`, `{"layer_norm_epsilon": {"__float__": "Infinity"}}`, `{"time_step_limit": [NaN, 1]}`, `{"time_step_limit": [0, -Infinity]}`,
		`{"time_step_limit": [1, 0]}`, `{"time_step_limit": [2, 1]}`, `{"norm_epsilon": 1e39}`, `{"vocab_size": 5, "pad_vocab_size_multiple": -8}`} {
		if c, err := ParseConfig([]byte(text)); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %+v, error %v", text, c, err)
		}
	}
}

func TestStoredErrors(t *testing.T) {
	m, other := random(false, 1, 2).model(t, small), random(false, 1, 1).model(t, small)
	var b bytes.Buffer
	_, err := newState(t, m, 0).WriteTo(&b)
	must(t, err)
	for _, n := range []int{0, 7, 15, 16, 40, b.Len() - 1} {
		if _, err := m.ReadState(bytes.NewReader(b.Bytes()[:n])); !errors.Is(err, ErrState) {
			t.Errorf("%d bytes: error %v", n, err)
		}
	}
	if _, err := other.ReadState(bytes.NewReader(b.Bytes())); !errors.Is(err, ErrState) {
		t.Errorf("error %v", err)
	}
}

// TestOpenTorch reads the same model from a file of PyTorch and from two with an index,
// by their paths and by their folders.
func TestOpenTorch(t *testing.T) {
	s := random(true, 1, 2)
	ids := tokens(1, 40)
	want, got := zeros(len(ids), vocab), zeros(len(ids), vocab)
	must(t, s.model(t, small).Forward(want, ids))
	half := func(first bool) state {
		return state{s.Renamed(func(n string) string {
			if strings.Contains(n, "layers.0.") != first {
				return ""
			}
			return n
		})}
	}
	var index []string
	for n := range s.State {
		index = append(index, fmt.Sprintf("%q: \"%v.bin\"", n, strings.Contains(n, "layers.0.")))
	}
	for _, files := range []map[string][]byte{
		{"pytorch_model.bin": s.Torch(false)},
		{
			"true.bin": half(true).Torch(false), "false.bin": half(false).Torch(true),
			"pytorch_model.bin.index.json": []byte(`{"weight_map": {` + strings.Join(index, ", ") + `}}`),
		},
	} {
		dir := t.TempDir()
		paths := []string{dir}
		for name, b := range files {
			must(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
			if strings.HasPrefix(name, "pytorch_model") {
				paths = append(paths, filepath.Join(dir, name))
			}
		}
		must(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"ssm_cfg": {"d_state": 6, "headdim": 8}}`), 0o600))
		for _, path := range paths {
			m, err := Open(path, Config{})
			must(t, err)
			must(t, m.Forward(got, ids))
			same(t, path, got.Data, want.Data)
		}
	}
}

// FuzzRead: any file gives an error or a model that runs.
func FuzzRead(f *testing.F) {
	f.Add(random(true, 1, 2).File(), []byte(`{"ssm_cfg": {"d_state": 6, "headdim": 8}}`))
	f.Add(random(false, 1).File(), []byte(`{"model_type": "falcon_mamba"}`))
	f.Add(random(false, 1).Torch(true), []byte(`{}`))
	f.Add([]byte("{}"), []byte(`{"d_model": 1e9}`))
	f.Fuzz(func(t *testing.T, checkpoint, config []byte) {
		cfg, err := ParseConfig(config)
		if err != nil {
			return
		}
		cfg.Workers = 1
		m, err := Read(bytes.NewReader(checkpoint), int64(len(checkpoint)), cfg)
		if err != nil {
			return
		}
		must(t, m.Forward(zeros(1, m.cfg.Vocab), make([]int32, 1)))
	})
}
