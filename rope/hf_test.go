package rope

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
)

func mustHF(t testing.TB, text string, compat Compat) *HF {
	t.Helper()
	m, err := FromHF([]byte(text), compat)
	must(t, err)
	return m
}

const (
	llama31 = `{"model_type": "llama", "hidden_size": 4096, "num_attention_heads": 32, "max_position_embeddings": 131072, "rope_theta": 500000.0,
		"rope_scaling": {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"}}`
	deepSeekV3 = `{"model_type": "deepseek_v3", "hidden_size": 7168, "num_attention_heads": 128, "qk_rope_head_dim": 64, "max_position_embeddings": 163840, "rope_theta": 10000,
		"rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096, "type": "yarn"}}`
	gemma3 = `{"model_type": "gemma3", "text_config": {"head_dim": 256, "hidden_size": 2560, "num_attention_heads": 8, "num_hidden_layers": 8, "max_position_embeddings": 131072,
		"rope_theta": 1000000, "rope_local_base_freq": 10000, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window_pattern": 6}}`
	gemma3v5 = `{"head_dim": 256, "max_position_embeddings": 131072, "layer_types": ["sliding_attention", "full_attention"],
		"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000}, "sliding_attention": {"rope_type": "default", "rope_theta": 10000}}}`
	modernBERT = `{"hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 4, "global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0}`
	gptJ       = `{"model_type": "gptj", "n_embd": 4096, "n_head": 16, "n_positions": 2048, "rotary_dim": 64}`
	neoX       = `{"model_type": "gpt_neox", "hidden_size": 2048, "num_attention_heads": 16, "rotary_pct": 0.25, "rotary_emb_base": 20000}`
	qwen3VL    = `{"text_config": {"head_dim": 128, "hidden_size": 4096, "num_attention_heads": 32, "max_position_embeddings": 262144, "rope_theta": 5000000,
		"rope_scaling": {"mrope_interleaved": true, "mrope_section": [24, 20, 20], "rope_type": "default"}}, "vision_config": {"hidden_size": 1152}}`
	gptOSS = `{"head_dim": 64, "hidden_size": 2880, "num_attention_heads": 64, "max_position_embeddings": 131072, "rope_theta": 150000,
		"rope_scaling": {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0, "original_max_position_embeddings": 4096, "rope_type": "yarn", "truncate": false}}`
	nulls = `{"head_dim": null, "hidden_size": 64, "num_attention_heads": 2, "rope_scaling": null, "rope_theta": null, "partial_rotary_factor": null}`
)

// TestFromHF reads the files of published models.
func TestFromHF(t *testing.T) {
	yarn := YaRN{Factor: 40, Original: 4096, BetaFast: 32, BetaSlow: 1, MScale: 1, MScaleAllDim: 1}
	for _, c := range []struct {
		name, text, layer string
		want              Config
	}{
		{"Llama 3.1", llama31, "", Config{HeadDim: 128, RotaryDim: 128, Base: 500000, Scheme: Llama3{Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, Original: 8192}}},
		{"DeepSeek-V3", deepSeekV3, "", Config{HeadDim: 64, RotaryDim: 64, Base: 10000, Layout: Interleaved, Scheme: yarn}},
		{"Gemma 3, full", gemma3, "full_attention", Config{HeadDim: 256, RotaryDim: 256, Base: 1e6, Scheme: Linear{Factor: 8}}},
		{"Gemma 3, sliding", gemma3, "sliding_attention", Config{HeadDim: 256, RotaryDim: 256, Base: 1e4, Scheme: Plain{}}},
		{"Gemma 3 v5, full", gemma3v5, "full_attention", Config{HeadDim: 256, RotaryDim: 256, Base: 1e6, Scheme: Linear{Factor: 8}}},
		{"ModernBERT, full", modernBERT, "full_attention", Config{HeadDim: 64, RotaryDim: 64, Base: 160000, Scheme: Plain{}}},
		{"GPT-J", gptJ, "", Config{HeadDim: 256, RotaryDim: 64, Base: 10000, Layout: Interleaved, Scheme: Plain{}}},
		{"GPT-NeoX", neoX, "", Config{HeadDim: 128, RotaryDim: 32, Base: 20000, Scheme: Plain{}}},
		{"Qwen3-VL", qwen3VL, "", Config{HeadDim: 128, RotaryDim: 128, Base: 5e6, Scheme: Plain{}, Sections: []int{24, 20, 20}, SectionsInterleaved: true}},
		{"gpt-oss", gptOSS, "", Config{HeadDim: 64, RotaryDim: 64, Base: 150000, Scheme: YaRN{Factor: 32, Original: 4096, BetaFast: 32, BetaSlow: 1, NoTruncate: true}}},
		{"nulls", nulls, "any", Config{HeadDim: 32, RotaryDim: 32, Base: 10000, Scheme: Plain{}}},
	} {
		m := mustHF(t, c.text, V5)
		got, err := m.Config(c.layer)
		must(t, err)
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
		if len(m.Unknown) > 0 {
			t.Errorf("%s: unknown keys %q", c.name, m.Unknown)
		}
		mustNew(t, got)
	}
	if m := mustHF(t, deepSeekV3, V5); math.Abs(m.configs[""].SoftmaxFactor()-math.Pow(0.1*math.Log(40)+1, 2)) > 1e-12 {
		t.Errorf("softmax factor %v", m.configs[""].SoftmaxFactor())
	}
}

func TestHFLayers(t *testing.T) {
	kinds := func(m *HF) (text string) {
		for i := range m.Layers {
			cfg, err := m.Layer(i)
			must(t, err)
			text += fmt.Sprint(cfg.Base, " ")
		}
		return text
	}
	if got := kinds(mustHF(t, gemma3, V5)); got != "10000 10000 10000 10000 10000 1e+06 10000 10000 " {
		t.Errorf("Gemma 3: %s", got)
	}
	if got := kinds(mustHF(t, modernBERT, V5)); got != "160000 10000 10000 160000 " {
		t.Errorf("ModernBERT: %s", got)
	}
	m := mustHF(t, gemma3v5, V5)
	if got := kinds(m); got != "10000 1e+06 " {
		t.Errorf("Gemma 3 v5: %s", got)
	}
	if _, err := m.Config("chunked"); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), `"chunked", want one of full_attention, sliding_attention`) {
		t.Errorf("error %v", err)
	}
	if _, err := m.Layer(2); !errors.Is(err, ErrConfig) {
		t.Errorf("layer 2 of 2: error %v", err)
	}
}

// TestCompat reads one file as several versions do.
func TestCompat(t *testing.T) {
	const yarn = `{"head_dim": 64, "max_position_embeddings": 32768, "original_max_position_embeddings": 2048,
		"rope_scaling": {"type": "yarn", "factor": 2, "truncate": false, "original_max_position_embeddings": 8192}}`
	for compat, want := range map[Compat]YaRN{
		V5: {Original: 2048, Factor: 2, NoTruncate: true}, V4: {Original: 8192, Factor: 4, NoTruncate: true},
		V448: {Original: 32768, Factor: 2}, V443: {Original: 32768, Factor: 2},
	} {
		cfg, err := mustHF(t, yarn, compat).Config("")
		must(t, err)
		if cfg.Scheme != want {
			t.Errorf("compat %d: %+v, want %+v", compat, cfg.Scheme, want)
		}
	}
	// Bases that no key says: Olmo3Config and CohereConfig of transformers 4.57, and of 5.
	for _, kind := range []string{"olmo3", "cohere"} {
		text := fmt.Sprintf(`{"model_type": %q, "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 4}`, kind)
		for compat, want := range map[Compat]float64{V5: 5e5, V4: 1e4, V448: 1e4, V443: 1e4} {
			cfg, err := mustHF(t, text, compat).Layer(3)
			must(t, err)
			if cfg.Base != want {
				t.Errorf("%s, compat %d: base %v, want %v", kind, compat, cfg.Base, want)
			}
		}
	}
	// By layer type only the one within counts.
	cfg, err := mustHF(t, `{"head_dim": 64, "max_position_embeddings": 32768, "original_max_position_embeddings": 2048,
		"layer_types": ["full_attention"], "rope_parameters": {"full_attention": {"rope_type": "yarn", "factor": 4}}}`, V5).Config("full_attention")
	must(t, err)
	if got := cfg.Scheme.(YaRN).Original; got != 32768 {
		t.Errorf("by layer type: original length %d", got)
	}
	const long = `{"head_dim": 4, "max_position_embeddings": %d, "original_max_position_embeddings": 4096,
		"rope_scaling": {"type": "su", "short_factor": [1, 2], "long_factor": [3, 4]}}`
	for _, c := range []struct {
		compat       Compat
		longest      int
		length       int64
		wantInverted float64 // of the first frequency, which is the factor
	}{
		{V5, 131072, 4096, 1}, {V5, 131072, 4097, 3}, {V5, 131072, 0, 1}, {V448, 131072, 100, 1},
		{V443, 131072, 100, 3}, {V443, 4096, 5000, 1},
	} {
		cfg, err := mustHF(t, fmt.Sprintf(long, c.longest), c.compat).Config("")
		must(t, err)
		cfg.Length = c.length
		if got := 1 / mustNew(t, cfg).Frequencies()[0]; got != c.wantInverted {
			t.Errorf("%+v: factor %v", c, got)
		}
	}
	if _, err := FromHF([]byte(`{}`), 9); !errors.Is(err, ErrConfig) {
		t.Errorf("error %v", err)
	}
}

func TestHFUnknown(t *testing.T) {
	m := mustHF(t, `{"head_dim": 64, "rope_scaling": {"rope_type": "linear", "factor": 2, "beta_fast": 3, "zeta": {}}}`, V5)
	if got := strings.Join(m.Unknown, " "); got != "rope_scaling.beta_fast rope_scaling.zeta" {
		t.Errorf("unknown keys %s", got)
	}
}

// TestHFErrors: errors name the key and its value.
func TestHFErrors(t *testing.T) {
	for text, want := range map[string]string{
		``:                    "config.json: unexpected end",
		`null`:                "config.json: is null",
		`[]`:                  "config.json: json: cannot unmarshal array",
		`{}`:                  "neither head_dim nor hidden_size and num_attention_heads",
		`{"text_config": {}}`: "neither head_dim nor hidden_size and num_attention_heads",
		`{"head_dim": "x"}`:   `head_dim is "x", want a number`,
		`{"head_dim": 7}`:     "the rotary dimension is 7",
		`{"head_dim": 1e15}`:  "head_dim is 1000000000000000, want at most 65536",
		`{"head_dim": 6.5}`:   "head_dim is 6.5, want a whole number",
		`{"head_dim": -8}`:    "head_dim is -8",
		`{"hidden_size": 8, "num_attention_heads": 0}`:                                                                                                 "num_attention_heads is 0",
		`{"head_dim": 8, "rope_theta": -3}`:                                                                                                            "Base is -3",
		`{"head_dim": 8, "partial_rotary_factor": 0}`:                                                                                                  "partial_rotary_factor is 0",
		`{"head_dim": 10, "partial_rotary_factor": .5}`:                                                                                                "invalid character",
		`{"head_dim": 10, "partial_rotary_factor": 0.5}`:                                                                                               "the rotary dimension is 5",
		`{"head_dim": 8, "rope_scaling": 3}`:                                                                                                           "config.json: rope_scaling: json: cannot unmarshal number",
		`{"head_dim": 8, "rope_scaling": {"rope_type": "foo"}}`:                                                                                        `rope_scaling.rope_type is "foo", want one of "default", "dynamic"`,
		`{"head_dim": 8, "rope_scaling": {"type": "linear"}}`:                                                                                          `rope_scaling.factor is missing; the keys are ["type"]`,
		`{"head_dim": 8, "rope_scaling": {"type": "linear", "factor": 0}}`:                                                                             "rope_scaling.factor is 0, want a number above 0",
		`{"head_dim": 8, "rope_scaling": {"type": "linear", "factor": "4"}}`:                                                                           `rope_scaling.factor is "4", want a number`,
		`{"head_dim": 8, "rope_scaling": {"type": "dynamic", "factor": 2}}`:                                                                            "MaxPosition is 0",
		`{"head_dim": 8, "rope_scaling": {"type": "yarn", "factor": 2}}`:                                                                               "Original is 0",
		`{"head_dim": 8, "max_position_embeddings": 64, "rope_scaling": {"type": "llama3", "factor": 2}}`:                                              "rope_scaling.low_freq_factor is missing",
		`{"head_dim": 8, "max_position_embeddings": 64, "rope_scaling": {"type": "longrope", "short_factor": [1, 1, 1, 1]}}`:                           "rope_scaling.long_factor is missing",
		`{"head_dim": 8, "max_position_embeddings": 64, "rope_scaling": {"type": "longrope", "short_factor": [1, 1], "long_factor": [1, 1, 1, 1]}}`:    "Short has 2 factors, want half the rotary dimension = 4",
		`{"head_dim": 8, "rope_scaling": {"mrope_section": [2.5, 1.5]}}`:                                                                               "mrope_section has the element 2.5",
		`{"head_dim": 8, "rope_parameters": {"full": {"rope_type": "linear"}}}`:                                                                        "rope_parameters.full.factor is missing",
		`{"head_dim": 8, "max_position_embeddings": 64, "rope_scaling": {"type": "yarn", "factor": 2, "attention_factor": -1}}`:                        "attention_factor is -1",
		`{"head_dim": 8, "max_position_embeddings": 64, "rope_scaling": {"type": "yarn", "factor": 2, "truncate": "` + strings.Repeat("a", 99) + `"}}`: `truncate is "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..., want true or false`,
	} {
		if _, err := FromHF([]byte(text), V5); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "rope: ") {
			t.Errorf("%s: error %v, want one with %q", text, err, want)
		}
	}
}

// FuzzFromHF: any text is an error or has configurations that New takes.
func FuzzFromHF(f *testing.F) {
	for _, text := range []string{llama31, deepSeekV3, gemma3, gemma3v5, modernBERT, gptJ, neoX, qwen3VL, gptOSS, nulls} {
		f.Add([]byte(text), uint8(0))
	}
	f.Add([]byte(`{"model_type": "deepseek_v4", "num_hidden_layers": 2, "compress_ratios": [0, 4], "rope_scaling": {"type": "yarn", "factor": 4}}`), uint8(AnyModel))
	f.Add([]byte(`{"model_type": "bailing_hybrid", "layer_group_size": 2, "num_layers": 3, "rope_theta": [1, 2]}`), uint8(V4))
	f.Fuzz(func(t *testing.T, text []byte, compat uint8) {
		m, err := FromHF(text, Compat(compat))
		if err != nil {
			if !errors.Is(err, ErrConfig) {
				t.Errorf("error %v", err)
			}
			return
		}
		for _, layer := range append(m.Types, "") {
			if cfg, err := m.Config(layer); err == nil {
				if _, err := New(cfg); err != nil {
					t.Errorf("New: %v", err)
				}
			}
		}
		for i := range 3 {
			if cfg, err := m.Layer(i); err == nil {
				if _, err := New(cfg); err != nil {
					t.Errorf("New of layer %d: %v", i, err)
				}
			}
		}
	})
}
