package dna

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/subquad/subquad/internal/weights/weightstest"
)

// layouts turn the standalone file's names into the others.
var layouts = map[string]func(string) string{
	"training": func(n string) string { return "model." + n },
	"checkpointed": func(n string) string {
		return "model." + strings.NewReplacer(".mixer.", ".mixer.layer.", ".mlp.", ".mlp.layer.").Replace(n)
	},
	"Hugging Face": func(n string) string { return "hyena." + n },
	"MultiMolecule": func(n string) string {
		return strings.NewReplacer("backbone.", "model.", "ln_f", "final_layer_norm").Replace(n)
	},
}

func TestLayouts(t *testing.T) {
	s := small.random(1)
	want := everything(s.model(t, small.config()), bases(1, 50))
	must(t, s.model(t, small.config()).Run(t.Context(), want))
	for name, rename := range layouts {
		m := s.renamed(rename).model(t, small.config())
		c := everything(m, want.Tokens)
		must(t, m.Run(t.Context(), c))
		same(t, name, c.outputs(), want.outputs())
		if vocabulary := m.Vocabulary(); (vocabulary == MultiMolecule) != (name == "MultiMolecule") {
			t.Errorf("%s: vocabulary %d", name, vocabulary)
		}
	}
	// Foreign tensors are passed over, frequencies of each layer are taken.
	s.State["val_loss.metric"] = weightstest.Tensor{Shape: []int{1}, Data: []float32{1}}
	for i := range small.layers {
		one := "backbone.layers." + string(rune('0'+i)) + ".mixer.filter_fn.implicit_filter.1.freq"
		s.State[strings.Replace(one, ".1.freq", ".3.freq", 1)] = s.State[one]
	}
	m := s.model(t, small.config())
	c := everything(m, want.Tokens)
	must(t, m.Run(t.Context(), c))
	same(t, "more tensors", c.outputs(), want.outputs())
	// A language-model head of its own.
	head := s.State["backbone."+wordEmbeddings]
	head.Data = make([]float32, len(head.Data))
	s.State["lm_head.weight"] = head
	m = s.model(t, small.config())
	must(t, m.Run(t.Context(), c))
	for _, v := range c.Logits.Data {
		if v != 0 {
			t.Fatalf("a logit of a head of zeros is %v", v)
		}
	}
}

func TestCheckpointErrors(t *testing.T) {
	const block = "backbone.layers.1."
	for want, change := range map[string]func(s state, c *Config){
		"no tensor backbone.layers.1.mixer.in_proj.weight": func(s state, _ *Config) { delete(s.State, block+"mixer.in_proj.weight") },
		"no tensor backbone.ln_f.bias":                     func(s state, _ *Config) { delete(s.State, "backbone.ln_f.bias") },
		"no tensor backbone.embeddings.word_embeddings.weight of two dimensions or more": func(s state, _ *Config) {
			delete(s.State, "backbone."+wordEmbeddings)
		},
		"no tensor backbone.layers.1.mixer.filter_fn.implicit_filter.4.weight": func(s state, _ *Config) {
			delete(s.State, block+"mixer.filter_fn.implicit_filter.4.weight")
		},
		"tensor backbone.layers.1.mlp.fc1.weight has the shape [12 20], want [20 12]": func(s state, _ *Config) {
			s.State[block+"mlp.fc1.weight"] = weightstest.Tensor{Shape: []int{12, 20}, Data: make([]float32, 240)}
		},
		"tensor backbone.layers.1.mixer.short_filter.weight has the shape [36 0 3], want [36 any]": func(s state, _ *Config) {
			s.State[block+"mixer.short_filter.weight"] = weightstest.Tensor{Shape: []int{36, 0, 3}, Data: nil}
		},
		"tensor backbone.layers.1.norm1.bias has the shape [13], want [12]": func(s state, _ *Config) {
			s.State[block+"norm1.bias"] = weightstest.Tensor{Shape: []int{13}, Data: make([]float32, 13)}
		},
		"tensor backbone.layers.1.mixer.filter_fn.pos_emb.t has the shape [1 3 1], want [700]": func(s state, _ *Config) {
			s.State[block+"mixer.filter_fn.pos_emb.t"] = weightstest.Tensor{Shape: []int{1, 3, 1}, Data: make([]float32, 3)}
		},
		"backbone.ln_f.weight and model.backbone.ln_f.weight are the same tensor": func(s state, _ *Config) {
			s.State["model.backbone.ln_f.weight"] = s.State["backbone.ln_f.weight"]
		},
		"no block, as there is no tensor backbone.layers.0.norm1.weight: it is of another kind of model; the file has ": func(s state, _ *Config) {
			for name, tensor := range s.State {
				if strings.Contains(name, "norm1.") {
					delete(s.State, name)
					s.State[strings.Replace(name, "norm1.", "norm.", 1)] = tensor
				}
			}
		},
		"2 blocks, want Layers = 3": func(_ state, c *Config) { c.Layers = 3 },
		"tensor backbone.embeddings.word_embeddings.weight has the shape [16 12], want [16 24]": func(_ state, c *Config) {
			c.Dim, c.Order = 24, 2
		},
		"Order is 1001, want 2 to 1000": func(_ state, c *Config) { c.Order = 1001 },
		"tensor head.output_transform.weight has the shape [2 13], want [2 12]": func(s state, _ *Config) {
			s.State["head.output_transform.weight"] = weightstest.Tensor{Shape: []int{2, 13}, Data: make([]float32, 26)}
		},
	} {
		s, cfg := small.random(1), small.config()
		change(s, &cfg)
		if _, err := s.read(cfg); !errors.Is(err, ErrCheckpoint) || !strings.HasPrefix(err.Error(), "dna: checkpoint: "+want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	for want, cfg := range map[string]Config{
		"dna: MaxLen is in neither the configuration nor the checkpoint": {},
		"dna: Workers is -1, want 0 to 65536":                            {MaxLen: 5, Workers: -1},
		"dna: Format is 7":                                               {MaxLen: 5, Format: 7},
		"dna: Eps is -1, want a finite number, 0 or more":                {MaxLen: 5, Eps: -1},
	} {
		if _, err := small.random(1).read(cfg); !errors.Is(err, ErrConfig) || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	if _, err := Read(bytes.NewReader([]byte("text")), 4, Config{}); !errors.Is(err, ErrCheckpoint) {
		t.Errorf("error %v", err)
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "model.safetensors")
	write := func(name string, b []byte) { must(t, os.WriteFile(filepath.Join(dir, name), b, 0o600)) }
	if _, err := Open(path, Config{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	write("model.safetensors", small.random(1).File())
	if _, err := Open(path, Config{}); !errors.Is(err, ErrConfig) {
		t.Errorf("without a length: error %v", err)
	}
	write("config.json", []byte(`{"d_model": 12, "n_layer": 2, "vocab_size": 12, "pad_vocab_size_multiple": 8, "layer": {"l_max": 333}}`))
	m, err := Open(path, Config{Workers: 1})
	must(t, err)
	if c := m.Config(); c.MaxLen != 333 || c.Vocab != 16 || c.Inner != 20 || c.EmbDim != 5 || c.Workers != 1 || c.Eps != 1e-5 {
		t.Errorf("configuration %+v", c)
	}
	if m, err = Open(path, Config{MaxLen: 50}); err != nil || m.Config().MaxLen != 50 {
		t.Errorf("configuration %+v, error %v", m.Config(), err)
	}
	write("config.json", []byte(`{"d_model": 13}`))
	if _, err = Open(path, Config{MaxLen: 50}); !errors.Is(err, ErrCheckpoint) {
		t.Errorf("error %v", err)
	}
	write("config.json", []byte(`{`))
	if _, err = Open(path, Config{}); !errors.Is(err, ErrConfig) {
		t.Errorf("error %v", err)
	}
	write("model.safetensors", []byte("not a checkpoint at all"))
	write("config.json", []byte(`{}`))
	if _, err = Open(path, Config{}); !errors.Is(err, ErrCheckpoint) || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v", err)
	}
}

func TestParseConfig(t *testing.T) {
	shift := 0.0
	for text, want := range map[string]Config{
		`{}`: {},
		`{"d_model": 128, "n_layer": 2, "d_inner": 512, "vocab_size": 12, "pad_vocab_size_multiple": 8, "residual_in_fp32": true,
		  "layer": {"_name_": "hyena", "emb_dim": 5, "filter_order": 64, "local_order": 3, "l_max": 16386, "modulate": true, "w": 10, "lr": 0.0006}}`: {
			Dim: 128, Layers: 2, Inner: 512, Vocab: 16, MaxLen: 16386, EmbDim: 5, Freq: 10},
		`{"d_model": 8, "initializer_cfg": {"x": -Infinity}, "y": [{"__float__": "NaN"}]}`: {Dim: 8, Freq: 1},
		// Silent about the frequency of sines: 10 in MultiMolecule's HyenaDnaConfig, 1 in HyenaConfig of the port.
		`{"model_type": "hyenadna", "hidden_size": 8, "activation_freq": null}`: {Dim: 8},
		`{"layer": {"modulate": false, "shift": 0, "order": 3}}`:                {NoModulation: true, Shift: &shift, Order: 3},
		`{"vocab_size": 12, "d_model": 256, "d_inner": 1024, "n_layer": 8, "max_seq_len": 450002, "emb_dim": 5, "hyena_order": 2,
		  "activation_freq": 10, "layer_norm_epsilon": 1e-05, "pad_vocab_size_multiple": 8, "model_type": "hyenadna"}`: {
			Dim: 256, Layers: 8, Inner: 1024, Vocab: 16, MaxLen: 450002, Order: 2, EmbDim: 5, Freq: 10, Eps: 1e-5},
		`{"vocab_size": 11, "hidden_size": 256, "num_hidden_layers": 8, "intermediate_size": 1024, "max_position_embeddings": 160002,
		  "filter_emb_dim": 5, "layer_norm_eps": 1e-05, "hyena_order": 2, "pad_vocab_size_multiple": 8}`: {
			Dim: 256, Layers: 8, Inner: 1024, Vocab: 16, MaxLen: 160002, Order: 2, EmbDim: 5, Eps: 1e-5},
	} {
		got, err := ParseConfig([]byte(text))
		must(t, err)
		if (got.Shift == nil) != (want.Shift == nil) || got.Shift != nil && *got.Shift != *want.Shift {
			t.Errorf("%s: shift %v", text, got.Shift)
		}
		got.Shift, want.Shift = nil, nil
		if got != want {
			t.Errorf("%s: %+v, want %+v", text, got, want)
		}
	}
	for _, text := range []string{`[`, `{"d_model": "wide"}`, `{"d_model": -4}`, `{"vocab_size": 9000000000000000000, "pad_vocab_size_multiple": 8}`, `{"layer": {"w": -1}}`, `{"layer": {"w": NaN}}`, `{"layer_norm_eps": 1e39}`, `{"vocab_size": 5, "pad_vocab_size_multiple": -8}`, `{"layer_norm_eps": {"__float__": "Infinity"}}`} {
		if c, err := ParseConfig([]byte(text)); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %+v, error %v", text, c, err)
		}
	}
}

// TestOpenTorch reads the same model from files of PyTorch, in a folder as published.
func TestOpenTorch(t *testing.T) {
	s := small.random(1)
	want := everything(s.model(t, small.config()), bases(1, 50))
	must(t, s.model(t, small.config()).Run(t.Context(), want))
	for _, training := range []bool{false, true} {
		dir := t.TempDir()
		path := filepath.Join(dir, map[bool]string{false: "pytorch_model.bin", true: "weights.ckpt"}[training])
		must(t, os.WriteFile(path, s.renamed(layouts["checkpointed"]).Torch(training), 0o600))
		must(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"layer": {"l_max": 700}}`), 0o600))
		for _, path := range []string{path, dir} {
			m, err := Open(path, Config{})
			must(t, err)
			c := everything(m, want.Tokens)
			must(t, m.Run(t.Context(), c))
			same(t, path, c.outputs(), want.outputs())
		}
	}
}

// FuzzRead: any file gives an error or a model that runs.
func FuzzRead(f *testing.F) {
	tiny := dims{dim: 2, layers: 1, inner: 3, vocab: 8, maxLen: 9, order: 2, hidden: 2}
	f.Add(tiny.random(1).File(), []byte(`{"layer": {"l_max": 9}}`))
	f.Add(tiny.random(1).renamed(layouts["MultiMolecule"]).File(), []byte(`{"max_position_embeddings": 4, "hyena_order": 2}`))
	f.Add(tiny.random(1).Torch(true), []byte(`{"layer": {"l_max": 9}}`))
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
		must(t, m.Forward(zeros(1, m.cfg.Dim), make([]int32, 1)))
	})
}
