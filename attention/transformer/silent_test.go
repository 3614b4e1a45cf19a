package transformer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/weights/weightstest"
	"github.com/subquad/subquad/rope"
)

// silentSizes is all that a file of a type must say; silentMore what some types must besides.
const silentSizes = `"hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 8, "num_attention_heads": 4, "vocab_size": 50`

var silentMore = func() map[string]string {
	const kv = `"num_key_value_heads": 2`
	const latent = `"kv_lora_rank": 8, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 5`
	const deepSeek = latent + `, "n_routed_experts": 16, "num_experts_per_tok": 2, "moe_intermediate_size": 8`
	const linear = kv + `, "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_conv_kernel_dim": 4`
	const experts = `, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8`
	const heads = `, "mamba_n_heads": 4`
	return map[string]string{
		"mistral": kv, "ministral": kv, "mixtral": kv + `, "num_local_experts": 4, "num_experts_per_tok": 2`, "qwen2": kv, "qwen3": kv, "qwen3_moe": kv + experts, "smollm3": kv,
		"gemma2": kv, "gemma3_text": kv, "gpt_oss": kv + `, "num_local_experts": 4, "num_experts_per_tok": 2`, "deepseek_v3": deepSeek, "kimi_k2": deepSeek, "seed_oss": kv, "exaone4": kv,
		"ministral3": kv, "starcoder2": kv, "stablelm": kv, "glm4": kv, "bamba": kv + heads + `, "attn_layer_indices": [4]`, "granitemoehybrid": `"shared_intermediate_size": 12` + heads, "falcon_h1": kv + heads + `, "mamba_d_ssm": 64`,
		"jamba": kv, "nemotron_h": kv + `, "hybrid_override_pattern": "M*-EM*-E", "mamba_num_heads": 8, "mamba_head_dim": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8`,
		"qwen3_next": linear + experts + `, "shared_expert_intermediate_size": 8`, "qwen3_5": linear, "qwen3_5_text": linear,
		"qwen3_5_moe": linear + experts + `, "shared_expert_intermediate_size": 8`, "qwen3_5_moe_text": linear + experts + `, "shared_expert_intermediate_size": 8`,
		"kimi_linear": latent + `, "mla_use_nope": true, "linear_attn_config": {"full_attn_layers": [4, 8], "num_heads": 4, "head_dim": 8, "short_conv_kernel_size": 4}`,
	}
}()

// silentFile is a file of a type that says no more than it must, and extra.
func silentFile(kind, extra string) string {
	text := fmt.Sprintf(`"model_type": %q, %s`, kind, silentSizes)
	for _, more := range []string{silentMore[kind], extra} {
		if more != "" {
			text += ", " + more
		}
	}
	return "{" + text + "}"
}

func silentShape(t *testing.T, kind, extra string) *Shape {
	t.Helper()
	s, err := ParseConfig([]byte(silentFile(kind, extra)))
	if err != nil {
		t.Fatalf("%s: %s: %v", kind, extra, err)
	}
	return s
}

// TestSilent reads files of all model types that are silent about every key which need not be
// there. Values are those of the table of model types that this package was written from, which
// was read in transformers 5.3 and 4.57 and checked by vectors; beside each row is the class
// (transformers 5, configuration_*.py) that says the same, and where the two differ which one is taken.
func TestSilent(t *testing.T) {
	const (
		all   = "0-7"           // layers
		three = "0-2,4-6"       // all but each fourth
		half  = "8/8 half "     // features that rotate, of how many, in which layout, by which base
		pairs = "8/8 pairs "    //
		wide  = "/128 half "    //
		gemma = "256/256 half " //
	)
	seen := map[string]bool{}
	for _, c := range []struct {
		kind    string
		eps     string // rms_norm_eps, layer_norm_eps, norm_epsilon, layer_norm_epsilon
		act     string // hidden_act, hidden_activation
		bias    string // attention_bias, mlp_bias, attention_out_bias, use_bias, use_qkv_bias
		tied    bool   // tie_word_embeddings
		scale   string // of logits, as the number whose inverse root it is
		rotates string // head_dim, partial_rotary_factor, rope_theta, rope_scaling; by layers where they differ
		windows string // sliding_window, use_sliding_window, layer_types and patterns
		ends    string // bos_token_id, eos_token_id
	}{
		{"llama", "1e-06", "silu", "", false, "8", half + "10000", "", "1 [2]"},                                                           // LlamaConfig
		{"mistral", "1e-06", "silu", "", false, "8", half + "10000", "4096: " + all, "1 [2]"},                                             // MistralConfig
		{"ministral", "1e-06", "silu", "", false, "8", half + "10000", "4096: " + all, "1 [2]"},                                           // MinistralConfig
		{"mixtral", "1e-05", "silu", "", false, "8", half + "1e+06", "", "1 [2]"},                                                         // MixtralConfig, default_theta
		{"qwen2", "1e-06", "silu", "qkv", false, "8", half + "10000", "", "-1 []"},                                                        // Qwen2Config; biases: Qwen2Attention
		{"qwen3", "1e-06", "silu", "", false, "128", "128" + wide + "10000", "", "-1 []"},                                                 // Qwen3Config
		{"qwen3_moe", "1e-06", "silu", "", false, "8", half + "10000", "", "-1 []"},                                                       // Qwen3MoeConfig, which has no head_dim
		{"smollm3", "1e-06", "silu", "", true, "8", half + "2e+06: " + three, "", "128000 [128001]"},                                      // SmolLM3Config, default_theta, no_rope_layer_interval 4
		{"phi3", "1e-05", "silu", "", false, "8", half + "10000", "", "1 [32000]"},                                                        // Phi3Config
		{"gemma", "1e-06", "gelu tanh", "", true, "256", gemma + "10000", "", "2 [1]"},                                                    // GemmaConfig
		{"gemma2", "1e-06", "gelu tanh", "", true, "256", gemma + "10000", "4096: 0,2,4,6", "2 [1]"},                                      // Gemma2Config
		{"gemma3_text", "1e-06", "gelu tanh", "", true, "256", gemma + "10000: 0-4,6-7; " + gemma + "1e+06: 5", "4096: 0-4,6-7", "2 [1]"}, // Gemma3TextConfig
		{"olmo2", "1e-05", "silu", "", false, "8", half + "10000", "", "-1 [50279]"},                                                      // Olmo2Config
		{"olmo3", "1e-05", "silu", "", false, "8", half + "10000", "4096: " + three, "-1 [50279]"},                                        // Olmo3Config of 4.57; 5 has 500000
		{"granite", "1e-06", "silu", "", false, "1", half + "10000", "", "1 [2]"},                                                         // GraniteConfig, attention_multiplier 1
		{"gpt_oss", "1e-05", "clamped", "qkv o mlp", false, "64", "64/64 half 150000 yarn 32", "128: 0,2,4,6", "-1 []"},                   // GptOssConfig
		{"deepseek_v3", "1e-06", "silu", "", false, "10", "4/4 pairs 10000", "", "0 [1]"},                                                 // DeepseekV3Config
		{"kimi_k2", "1e-06", "silu", "", false, "10", "4/4 pairs 10000", "", "0 [1]"},                                                     // as deepseek_v3
		{"seed_oss", "1e-06", "silu", "qkv", false, "128", "128" + wide + "10000", "", "0 [2]"},                                           // SeedOssConfig
		{"exaone4", "1e-05", "silu", "", false, "8", half + "10000: " + three, "4096: " + three, "0 [2]"},                                 // Exaone4Config
		{"hunyuan_v1_dense", "1e-05", "silu", "", false, "8", half + "10000", "", "1 [2]"},                                                // HunYuanDenseV1Config
		{"ministral3", "1e-05", "silu", "", false, "128", "128" + wide + "1e+06 yarn 16", "", "1 [2]"},                                    // Ministral3Config
		{"starcoder2", "1e-05", "gelu tanh", "qkv o mlp", true, "8", half + "10000", "", "50256 [50256]"},                                 // Starcoder2Config
		{"stablelm", "1e-05", "silu", "", false, "8", "2/8 half 10000", "", "0 [0]"},                                                      // StableLmConfig
		{"cohere", "1e-05", "silu", "", true, "8", pairs + "500000", "", "5 [255001]"},                                                    // CohereConfig, default_theta; 4 has 10000
		{"cohere2", "1e-05", "silu", "", true, "8", pairs + "10000: " + three, "4096: " + three, "5 [255001]"},                            // Cohere2Config
		{"glm4", "1.5625e-07", "silu", "qkv", false, "128", "64/128 pairs 10000", "", "-1 [151329 151336 151338]"},                        // Glm4Config
		{"bamba", "1e-05", "silu", "", false, "8", "4/8 half 10000: 4", "", "1 [2]"},                                                      // BambaConfig, as all from here: the table has none
		{"granitemoehybrid", "1e-06", "silu", "", false, "1", "none", "", "1 [2]"},                                                        // GraniteMoeHybridConfig, position_embedding_type None
		{"nemotron_h", "1e-05", "silu", "", false, "128", "none", "", "1 [2]"},                                                            // NemotronHConfig; the activation of MLPs is relu2
		{"falcon_h1", "1e-05", "silu", "", false, "8", half + "10000", "", "1 [2]"},                                                       // FalconH1Config
		{"jamba", "1e-06", "silu", "", false, "8", "none", "", "1 [2]"},                                                                   // JambaConfig
		{"qwen3_next", "1e-06", "silu", "", false, "256", "64/256 half 10000: 3,7", "", "-1 []"},                                          // Qwen3NextConfig
		{"qwen3_5", "1e-06", "silu", "", false, "256", "64/256 half 10000: 3,7", "", "-1 []"},                                             // Qwen3_5TextConfig
		{"qwen3_5_text", "1e-06", "silu", "", false, "256", "64/256 half 10000: 3,7", "", "-1 []"},                                        // Qwen3_5TextConfig
		{"qwen3_5_moe", "1e-06", "silu", "", false, "256", "64/256 half 10000: 3,7", "", "-1 []"},                                         // Qwen3_5MoeTextConfig
		{"qwen3_5_moe_text", "1e-06", "silu", "", false, "256", "64/256 half 10000: 3,7", "", "-1 []"},                                    // Qwen3_5MoeTextConfig
		{"kimi_linear", "1e-06", "silu", "", false, "10", "none", "", "1 [2]"},                                                            // KimiLinearConfig, of the code published with it
		{"olmo_hybrid", "1e-06", "silu", "", false, "8", "none", "", "-1 [100257]"},                                                       // OlmoHybridConfig, rope_parameters None
	} {
		seen[c.kind] = true
		s := silentShape(t, c.kind, "")
		for _, f := range []struct{ what, got, want string }{
			{"eps", fmt.Sprint(s.eps), c.eps}, {"act", actInWords(s), c.act}, {"bias", biasInWords(s), c.bias},
			{"scale", fmt.Sprintf("%.4g", 1/(s.scale*s.scale)), c.scale}, {"rotates", rotationsInWords(s), c.rotates},
			{"windows", windowsInWords(s), c.windows}, {"ends", fmt.Sprint(s.BOS, " ", s.EOS), c.ends},
		} {
			if f.got != f.want {
				t.Errorf("%s: %s: %s, want %s", c.kind, f.what, f.got, f.want)
			}
		}
		if s.tied != c.tied || s.headless {
			t.Errorf("%s: tied %v, without a head %v", c.kind, s.tied, s.headless)
		}
		// A null is as good as nothing where it does not say that there is none.
		nulls := silentShape(t, c.kind, `"rms_norm_eps": null, "layer_norm_eps": null, "norm_epsilon": null, "layer_norm_epsilon": null, "hidden_act": null, "attention_bias": null,
			"mlp_bias": null, "tie_word_embeddings": null, "head_dim": null, "rope_theta": null, "rope_scaling": null, "rope_parameters": null, "layer_types": null, "partial_rotary_factor": null,
			"no_rope_layers": null, "sliding_window_pattern": null, "max_window_layers": null, "use_sliding_window": null, "quantization_config": null, "is_causal": null, "per_layer_config": null`)
		if !reflect.DeepEqual(nulls, s) {
			t.Errorf("%s: nulls: %+v, want %+v", c.kind, nulls, s)
		}
	}
	for kind := range modelTypes {
		if !seen[kind] {
			t.Errorf("%s is not tested", kind)
		}
		if classes[kind] == "" {
			t.Errorf("%s has no class", kind)
		}
	}
}

func actInWords(s *Shape) string {
	return map[dense.Activation]string{dense.SiLU: "silu", dense.GELU: "gelu", dense.GELUTanh: "gelu tanh", dense.ClampedSiLU: "clamped"}[s.act]
}

func biasInWords(s *Shape) string {
	var list []string
	for name, has := range map[string]bool{"qkv": s.qkvBias, "o": s.outBias, "mlp": s.mlpBias} {
		if has {
			list = append(list, name)
		}
	}
	slices.SortFunc(list, func(a, b string) int { return strings.Index("qkv o mlp", a) - strings.Index("qkv o mlp", b) })
	return strings.Join(list, " ")
}

// byLayers joins what layers have, with the layers that have it where not all do.
func byLayers(n int, of func(i int) string) string {
	at := map[string][]int{}
	for i := range n {
		if words := of(i); words != "" {
			at[words] = append(at[words], i)
		}
	}
	var list []string
	for words, layers := range at {
		var runs []string
		for i := 0; i < len(layers); {
			j := i
			for j+1 < len(layers) && layers[j+1] == layers[j]+1 {
				j++
			}
			run := fmt.Sprint(layers[i])
			if j > i {
				run += fmt.Sprint("-", layers[j])
			}
			runs = append(runs, run)
			i = j + 1
		}
		list = append(list, words+": "+strings.Join(runs, ","))
	}
	slices.Sort(list)
	return strings.Join(list, "; ")
}

func windowsInWords(s *Shape) string {
	return byLayers(s.Layers, func(i int) string {
		if s.Windows[i] == 0 {
			return ""
		}
		return fmt.Sprint(s.Windows[i])
	})
}

// rotationsInWords says what rotates in layers of attention.
func rotationsInWords(s *Shape) string {
	text := byLayers(s.Layers, func(i int) string {
		cfg := s.Rotations[i]
		if cfg.None || s.kind(i) == Recurrence || s.kind(i) == Alone {
			return ""
		}
		layout := "half"
		if cfg.Layout == rope.Interleaved {
			layout = "pairs"
		}
		words := fmt.Sprintf("%d/%d %s %.6g", cfg.RotaryDim, cfg.HeadDim, layout, cfg.Base)
		if yarn, ok := cfg.Scheme.(rope.YaRN); ok {
			words += fmt.Sprint(" yarn ", yarn.Factor)
		}
		return words
	})
	if text == "" {
		return "none"
	}
	return strings.TrimSuffix(text, fmt.Sprintf(": 0-%d", s.Layers-1))
}

// TestSilentClasses: what classes say is JSON, and a text_config that is silent about a size has
// that of its class, which a file of text alone must say.
func TestSilentClasses(t *testing.T) {
	for kind, text := range classes {
		var keys map[string]json.RawMessage
		if err := json.Unmarshal([]byte("{"+text+"}"), &keys); err != nil || modelTypes[kind].eps == 0 {
			t.Errorf("%s: %v", kind, err)
		}
		for _, key := range []string{"hidden_size", "num_attention_heads", "vocab_size"} {
			if keys[key] == nil {
				t.Errorf("%s has no %s", kind, key)
			}
		}
		extra := map[string]string{"nemotron_h": `, "hybrid_override_pattern": "M*-E"`, "kimi_linear": ", " + silentMore["kimi_linear"]}[kind]
		s, err := ParseConfig([]byte(fmt.Sprintf(`{"model_type": "llava", "text_config": {"model_type": %q%s}}`, kind, extra)))
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		if got := fmt.Sprint(s.Dim, s.Heads, s.Vocab); got != fmt.Sprint(string(keys["hidden_size"]), " ", string(keys["num_attention_heads"]), " ", string(keys["vocab_size"])) {
			t.Errorf("%s: %s", kind, got)
		}
		if _, err := ParseConfig([]byte(fmt.Sprintf(`{"model_type": %q%s}`, kind, extra))); !errors.Is(err, ErrConfig) {
			t.Errorf("%s, of text alone: error %v", kind, err)
		}
	}
}

// TestSilentText: the file of gemma-3-4b-it, whose text_config says little, is that of a model
// with all its widths.
func TestSilentText(t *testing.T) {
	s, err := ParseConfig([]byte(`{"architectures": ["Gemma3ForConditionalGeneration"], "boi_token_index": 255999, "eoi_token_index": 256000, "eos_token_id": [1, 106],
		"image_token_index": 262144, "initializer_range": 0.02, "mm_tokens_per_image": 256, "model_type": "gemma3", "text_config": {"hidden_size": 2560, "intermediate_size": 10240,
		"model_type": "gemma3_text", "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024}, "torch_dtype": "bfloat16",
		"vision_config": {"hidden_size": 1152, "image_size": 896, "num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14}}`))
	must(t, err)
	if got := fmt.Sprint(s.Layers, s.Heads, s.KVHeads, s.HeadDim, s.Vocab, s.MaxPosition, s.BOS, s.EOS, s.tied, 1/(s.scale*s.scale)); got != "34 8 4 256 262208 131072 2 [1 106] true 256" {
		t.Error(got)
	}
	if got := rotationsInWords(s); got != "256/256 half 10000: 0-4,6-10,12-16,18-22,24-28,30-33; 256/256 half 1e+06: 5,11,17,23,29" {
		t.Error(got)
	}
	if cfg := s.Rotations[5]; cfg.Scheme != (rope.Linear{Factor: 8}) {
		t.Errorf("%+v", cfg)
	}
}

// TestSilentHead: without lm_head.weight the embedding is the head, unless the file says that it is not.
func TestSilentHead(t *testing.T) {
	m := maker{weightstest.State{}, rand.New(rand.NewPCG(1, 2)), 8}
	m.ends("model.embed_tokens", "model.norm", 12)
	delete(m.State, "lm_head.weight")
	m.norm("model.layers.0.input_layernorm", 8)
	m.norm("model.layers.0.post_attention_layernorm", 8)
	m.attention("model.layers.0.self_attn.", 2, 1, 4)
	m.mlp("model.layers.0.mlp.", 6)
	file := m.File()
	for extra, head := range map[string]bool{``: true, `, "tie_word_embeddings": null`: true, `, "tie_word_embeddings": true`: true, `, "tie_word_embeddings": false`: false} {
		text := `{"model_type": "llama", "hidden_size": 8, "intermediate_size": 6, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 12` + extra + `}`
		model, err := Read(bytes.NewReader(file), int64(len(file)), []byte(text), Config{})
		must(t, err)
		if err := model.Run(t.Context(), &Call{Tokens: []int32{1}, Logits: zeros(1, 12)}); (err == nil) != head {
			t.Errorf("%s: error %v", extra, err)
		}
	}
}
