package transformer

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// probes say what keys come to that only some types have.
var probes = map[string]func(s *Shape) string{
	"act": actInWords, "bias": biasInWords, "windows": windowsInWords, "rotates": rotationsInWords,
	"scheme":      func(s *Shape) string { return fmt.Sprint(s.Rotations[0].Scheme) },
	"kv":          func(s *Shape) string { return fmt.Sprint(s.KVHeads) },
	"width":       func(s *Shape) string { return fmt.Sprint(s.HeadDim) },
	"scale":       func(s *Shape) string { return fmt.Sprintf("%.4g", 1/(s.scale*s.scale)) },
	"multipliers": func(s *Shape) string { return fmt.Sprintf("%.4g %.4g %.4g", s.embScale, s.resScale, s.outScale) },
	"caps":        func(s *Shape) string { return fmt.Sprint(s.softcap, s.outCap, s.limit) },
	"heat":        func(s *Shape) string { return fmt.Sprintf("%.2g %d", s.heat.beta, s.heat.original) },
	"ends":        func(s *Shape) string { return fmt.Sprint(s.BOS, " ", s.EOS) },
	"head":        func(s *Shape) string { return fmt.Sprint(s.tied, s.headless) },
	"norms":       func(s *Shape) string { return fmt.Sprint(s.qkNorm, s.places) },
	"experts": func(s *Shape) string {
		e := s.Experts
		return fmt.Sprintf("%d of %d, sum %v, times %.4g, groups %d of %d, shared %d, in %s", e.TopK, e.Count, e.normalise, e.scale, e.groupsUsed, e.groups, e.Shared,
			byLayers(s.Layers, func(i int) string { return map[bool]string{true: "layers"}[e.Sparse[i]] }))
	},
	"latent": func(s *Shape) string { return fmt.Sprint(*s.Latent) },
	"mamba":  func(s *Shape) string { return fmt.Sprint(*s.Mamba) },
	"delta":  func(s *Shape) string { return fmt.Sprint(*s.Delta) },
	"kinds": func(s *Shape) string {
		return byLayers(s.Layers, func(i int) string { return map[bool]string{true: "attention"}[s.kind(i) == Attention] })
	},
}

// TestSilentKeys: keys that only some types have, where a file is silent about them, where it
// says null, and keys that the code of a type does not look at. The sources are TestSilent's: a
// class is named where the table says nothing.
func TestSilentKeys(t *testing.T) {
	for _, c := range []struct{ kind, extra, what, want string }{
		// Heads of keys and values, and their width.
		{"llama", ``, "kv", "4"}, {"phi3", ``, "kv", "4"}, {"gemma", ``, "kv", "4"}, {"olmo2", ``, "kv", "4"}, {"olmo3", ``, "kv", "4"}, {"granite", ``, "kv", "4"},
		{"hunyuan_v1_dense", ``, "kv", "4"}, {"cohere", ``, "kv", "4"}, {"cohere2", ``, "kv", "4"},
		{"granitemoehybrid", ``, "kv", "4"}, {"kimi_linear", ``, "kv", "4"}, {"olmo_hybrid", ``, "kv", "4"}, // the classes' None
		{"llama", `"head_dim": 16`, "width", "16"}, {"cohere2", `"head_dim": 16`, "width", "16"},
		{"stablelm", `"head_dim": 16`, "width", "8"}, {"stablelm", `"head_dim": 16`, "rotates", "2/8 half 10000"}, // StableLmAttention: hidden_size / num_attention_heads always
		// Activations.
		{"gemma", `"hidden_act": "gelu"`, "act", "gelu tanh"}, {"gemma", `"hidden_act": "silu"`, "act", "silu"}, {"gemma", `"hidden_act": "silu", "hidden_activation": "gelu_pytorch_tanh"`, "act", "gelu tanh"},
		{"gemma2", `"hidden_act": "silu"`, "act", "gelu tanh"}, {"gemma3_text", `"hidden_act": "silu"`, "act", "gelu tanh"}, // hidden_activation is the only one that is read
		{"gemma2", `"hidden_activation": "silu"`, "act", "silu"}, {"llama", `"hidden_activation": "gelu"`, "act", "silu"}, {"llama", `"hidden_act": "gelu"`, "act", "gelu"},
		// Biases.
		{"mistral", `"attention_bias": true`, "bias", ""}, {"phi3", `"attention_bias": true`, "bias", ""}, {"llama", `"attention_bias": true, "mlp_bias": true`, "bias", "qkv o mlp"},
		{"qwen3", `"attention_bias": true`, "bias", "qkv o"}, {"qwen2", `"attention_bias": false`, "bias", "qkv"}, {"seed_oss", `"attention_out_bias": true`, "bias", "qkv o"},
		{"glm4", `"attention_bias": false`, "bias", ""}, {"gpt_oss", `"attention_bias": false`, "bias", "mlp"}, // GptOssAttention reads it; router and experts have theirs always
		{"starcoder2", `"use_bias": false`, "bias", ""}, {"stablelm", `"use_qkv_bias": true`, "bias", "qkv"},
		// Multipliers and caps.
		{"granite", ``, "multipliers", "1 1 1"}, {"granite", `"attention_multiplier": null, "logits_scaling": null`, "multipliers", "1 1 1"}, {"granite", `"logits_scaling": 4`, "multipliers", "1 1 0.25"},
		{"cohere", ``, "multipliers", "0 0 0.0625"}, {"cohere2", `"logit_scale": null`, "multipliers", "0 0 0.0625"},
		{"gemma", ``, "multipliers", "5.657 0 0"}, {"gemma2", ``, "multipliers", "5.657 0 0"}, {"gemma3_text", ``, "multipliers", "5.657 0 0"},
		{"granitemoehybrid", ``, "multipliers", "1 1 1"}, {"falcon_h1", ``, "multipliers", "1 0 1"}, // GraniteMoeHybridConfig, FalconH1Config
		{"gemma2", ``, "caps", "50 30 0"}, {"gemma2", `"attn_logit_softcapping": null, "final_logit_softcapping": null`, "caps", "0 0 0"}, {"gemma2", `"final_logit_softcapping": null`, "caps", "50 0 0"},
		{"gemma3_text", ``, "caps", "0 0 0"}, {"gemma3_text", `"final_logit_softcapping": 30, "attn_logit_softcapping": 50`, "caps", "0 30 0"}, // which nothing reads
		{"gemma2", `"query_pre_attn_scalar": null`, "scale", "256"}, {"gemma3_text", `"query_pre_attn_scalar": 168, "head_dim": 128`, "scale", "168"},
		{"gpt_oss", ``, "caps", "0 0 7"}, {"gpt_oss", `"swiglu_alpha": 1.702`, "caps", "0 0 7"}, // GptOssConfig of August 2026
		{"ministral3", ``, "heat", "0.1 16384"},                                                           // Ministral3Config
		{"ministral3", `"rope_parameters": {"rope_type": "default", "rope_theta": 5}`, "heat", "0 16384"}, // a beta that is not there
		{"ministral3", `"rope_theta": 5`, "rotates", "128/128 half 1e+06 yarn 16"},                        // the class's own rope_parameters have a base
		{"cohere", ``, "norms", "0 3"}, {"stablelm", ``, "norms", "0 0"}, {"stablelm", `"use_parallel_residual": null, "qk_layernorm": null`, "norms", "0 0"},
		// Windows.
		{"mistral", `"sliding_window": null`, "windows", ""}, {"ministral", `"sliding_window": null`, "windows", ""}, {"gemma2", `"sliding_window": null`, "windows", ""},
		{"gpt_oss", `"sliding_window": null`, "windows", ""}, {"olmo3", `"sliding_window": null`, "windows", ""},
		{"mixtral", `"sliding_window": 5`, "windows", "5: 0-7"}, {"phi3", `"sliding_window": 5`, "windows", "5: 0-7"}, {"starcoder2", `"sliding_window": 5`, "windows", "5: 0-7"}, {"ministral3", `"sliding_window": 5`, "windows", "5: 0-7"},
		{"qwen2", `"sliding_window": 5`, "windows", ""}, {"qwen2", `"use_sliding_window": true`, "windows", ""}, // from layer 28 on
		{"qwen2", `"use_sliding_window": true, "max_window_layers": 5`, "windows", "4096: 5-7"}, {"qwen3", `"use_sliding_window": true, "max_window_layers": 0, "sliding_window": null`, "windows", ""},
		{"qwen3_moe", `"use_sliding_window": true`, "windows", "4096: 0-7"}, {"smollm3", `"use_sliding_window": true`, "windows", ""}, {"smollm3", `"use_sliding_window": true, "sliding_window": 5`, "windows", "5: 3,7"},
		{"exaone4", `"sliding_window": null`, "windows", ""}, {"exaone4", `"sliding_window": null`, "rotates", "8/8 half 10000"}, {"cohere2", `"sliding_window": null`, "rotates", "none"},
		{"exaone4", `"sliding_window_pattern": "LG"`, "windows", "4096: 0,2,4,6"}, {"gemma3_text", `"sliding_window_pattern": 2`, "windows", "4096: 0,2,4,6"}, {"cohere2", `"sliding_window_pattern": 2`, "windows", "4096: 0,2,4,6"},
		{"mistral", layerTypes("full_attention"), "windows", "4096: 0-7"}, // MistralModel does not look at it
		{"ministral", layerTypes("full_attention", "sliding_attention"), "windows", "4096: 1,3,5,7"}, {"gemma2", layerTypes("full_attention", "sliding_attention"), "windows", "4096: 1,3,5,7"},
		{"qwen3", layerTypes("full_attention", "sliding_attention") + `, "use_sliding_window": true, "sliding_window": 5`, "windows", "5: 1,3,5,7"},
		{"olmo3", `"sliding_window_pattern": 2`, "windows", "4096: 0,2,4,6"},
		// Bases.
		{"olmo3", `"rope_scaling": null`, "rotates", "8/8 half 10000"},                                                                                                                                          // Olmo3Config of 4.57, and of vLLM
		{"olmo3", `"rope_parameters": {"full_attention": {"rope_type": "default"}, "sliding_attention": {"rope_type": "default"}}`, "rotates", "8/8 half 500000"},                                               // Olmo3Config of 5
		{"olmo3", `"max_position_embeddings": 64, "rope_scaling": {"rope_type": "yarn", "factor": 8, "original_max_position_embeddings": 8}`, "rotates", "8/8 half 10000 yarn 8: 3,7; 8/8 half 10000: 0-2,4-6"}, // full layers alone are scaled
		{"gemma3_text", `"rope_local_base_freq": null, "rope_theta": null`, "rotates", "256/256 half 10000: 0-4,6-7; 256/256 half 1e+06: 5"},                                                                    //
		{"gemma3_text", `"rope_parameters": {"full_attention": {"rope_type": "default"}, "sliding_attention": {"rope_type": "default"}}`, "rotates", "256/256 half 10000: 0-4,6-7; 256/256 half 1e+06: 5"},      //
		{"smollm3", `"no_rope_layer_interval": 2`, "rotates", "8/8 half 2e+06: 0,2,4,6"}, {"smollm3", `"no_rope_layers": [1,1,1,1,1,1,1,0]`, "rotates", "8/8 half 2e+06: 0-6"},                                  //
		{"phi3", `"partial_rotary_factor": 0.5`, "rotates", "4/8 half 10000"}, {"llama", `"partial_rotary_factor": 0.5`, "rotates", "8/8 half 10000"}, {"stablelm", `"partial_rotary_factor": 0.5`, "rotates", "4/8 half 10000"}, //
		{"olmo_hybrid", `"rope_theta": 5`, "rotates", "8/8 half 5: 3,7"}, {"granitemoehybrid", `"position_embedding_type": "rope", "layer_types": ["attention","mamba","mamba","mamba","mamba","mamba","mamba","mamba"]`, "rotates", "8/8 half 10000: 0"},
		{"llama", `"rope_scaling": {"type": "dynamic", "factor": 2}`, "scheme", "dynamic NTK, factor 2 beyond 2048"}, {"mistral", `"rope_scaling": {"type": "yarn", "factor": 4}`, "rotates", "8/8 half 10000 yarn 4"}, // max_position_embeddings of LlamaConfig
		// Experts.
		{"mixtral", ``, "experts", "2 of 4, sum true, times 0, groups 0 of 0, shared 0, in layers: 0-7"},
		{"qwen3_moe", ``, "experts", "2 of 4, sum false, times 0, groups 0 of 0, shared 0, in layers: 0-7"}, {"qwen3_moe", `"mlp_only_layers": null, "decoder_sparse_step": null`, "experts", "2 of 4, sum false, times 0, groups 0 of 0, shared 0, in layers: 0-7"},
		{"deepseek_v3", ``, "experts", "2 of 16, sum true, times 2.5, groups 4 of 8, shared 8, in layers: 3-7"},                                                                                                                            // DeepseekV3Config
		{"deepseek_v3", `"n_group": null, "topk_group": null, "n_shared_experts": null, "routed_scaling_factor": null, "first_k_dense_replace": null`, "experts", "2 of 16, sum true, times 2.5, groups 1 of 1, shared 0, in layers: 3-7"}, // no groups, none shared
		{"kimi_k2", ``, "experts", "2 of 16, sum true, times 2.5, groups 4 of 8, shared 8, in layers: 3-7"},
		{"deepseek_v3", ``, "latent", "{1536 8 6 4 5}"}, {"deepseek_v3", `"q_lora_rank": null`, "latent", "{0 8 6 4 5}"}, {"kimi_linear", ``, "latent", "{0 8 6 4 5}"}, // DeepseekV3Config, KimiLinearConfig
		{"kimi_linear", `"num_experts": 4, "num_experts_per_token": 2, "moe_intermediate_size": 8`, "experts", "2 of 4, sum true, times 1, groups 1 of 1, shared 0, in layers: 0-7"}, // KimiLinearConfig
		{"nemotron_h", ``, "experts", "2 of 4, sum true, times 1, groups 1 of 1, shared 0, in layers: 3,7"},                                                                          // NemotronHConfig
		{"granitemoehybrid", ``, "experts", "2 of 8, sum false, times 0, groups 0 of 0, shared 12, in layers: 0-7"},                                                                  // GraniteMoeHybridConfig
		{"jamba", ``, "experts", "2 of 16, sum false, times 0, groups 0 of 0, shared 0, in layers: 1,3,5,7"},                                                                         // JambaConfig
		{"qwen3_next", ``, "experts", "2 of 4, sum true, times 0, groups 0 of 0, shared 8, in layers: 0-7"},                                                                          // Qwen3NextConfig
		{"qwen3_5_moe", `"norm_topk_prob": false`, "experts", "2 of 4, sum true, times 0, groups 0 of 0, shared 8, in layers: 0-7"},                                                  // Qwen3_5MoeTopKRouter does not look at it
		// Recurrent layers: channels, heads, groups, states, taps, rank; groups and places of norms; limits of dt.
		{"bamba", ``, "mamba", "{64 4 1 256 4 0 1 false false 0 0}"},                                                                                      // BambaConfig
		{"granitemoehybrid", `"time_step_limit": null, "mamba_d_head": "auto"`, "mamba", "{64 4 1 256 4 0 1 false false 0 0}"},                            // GraniteMoeHybridConfig
		{"falcon_h1", ``, "mamba", "{64 4 1 256 4 0 1 true true 0 0}"}, {"falcon_h1", `"mamba_d_ssm": null`, "mamba", "{64 4 1 256 4 0 1 true true 0 0}"}, // FalconH1Config
		{"nemotron_h", ``, "mamba", "{32 8 8 128 4 0 8 false false 0 0}"},                                                        // NemotronHConfig
		{"nemotron_h", `"mamba_dt_limit": [0.5, 2], "time_step_limit": [0, 1]`, "mamba", "{32 8 8 128 4 0 8 false false 0.5 2}"}, // whose older name wins
		{"jamba", ``, "mamba", "{64 0 0 16 4 2 0 false false 0 0}"}, {"jamba", ``, "kinds", "attention: 4"},                      // JambaConfig
		{"qwen3_5", ``, "kinds", "attention: 3,7"}, {"qwen3_next", `"full_attention_interval": null`, "kinds", "attention: 3,7"}, // full_attention_interval 4
		{"olmo_hybrid", ``, "kinds", "attention: 3,7"}, {"olmo_hybrid", ``, "delta", "{4 4 6 12 4 false 1e-05 true}"}, // OlmoHybridConfig
		// Head and ends.
		{"llama", ``, "head", "false false"}, {"llama", `"tie_word_embeddings": false`, "head", "false true"}, {"smollm3", `"tie_word_embeddings": false`, "head", "false true"},
		{"llama", `"eos_token_id": [5, 7], "bos_token_id": null`, "ends", "-1 [5 7]"}, {"llama", `"eos_token_id": null`, "ends", "1 []"}, {"llama", `"eos_token_id": []`, "ends", "1 []"},
		{"glm4", `"eos_token_id": 3`, "ends", "-1 [3]"},
	} {
		if got := probes[c.what](silentShape(t, c.kind, c.extra)); got != c.want {
			t.Errorf("%s: %s: %s: %s, want %s", c.kind, c.extra, c.what, got, c.want)
		}
	}
}

// layerTypes is a layer_types of 8 layers.
func layerTypes(types ...string) string {
	var list []string
	for len(list) < 8 {
		list = append(list, types...)
	}
	return `"layer_types": ["` + strings.Join(list, `", "`) + `"]`
}

// TestSilentRefusals: what a file must say, and keys that would change results and are not
// computed, are errors that name the key.
func TestSilentRefusals(t *testing.T) {
	for _, kind := range []string{"mistral", "ministral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "smollm3", "gemma2", "gemma3_text", "gpt_oss", "seed_oss", "exaone4", "ministral3",
		"starcoder2", "stablelm", "glm4", "bamba", "falcon_h1", "jamba", "nemotron_h", "qwen3_next", "qwen3_5"} { // whose classes have a number of their own
		text := strings.Replace(silentFile(kind, ""), `"num_key_value_heads": 2`, `"vocab": 1`, 1)
		if _, err := ParseConfig([]byte(text)); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "num_key_value_heads") {
			t.Errorf("%s: error %v", kind, err)
		}
		if s, err := ParseConfig([]byte(strings.Replace(text, `"vocab": 1`, `"num_key_value_heads": null`, 1))); err != nil || s.KVHeads != 4 {
			t.Errorf("%s: null: error %v", kind, err)
		}
	}
	for _, key := range []string{"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"} {
		if _, err := ParseConfig([]byte(strings.Replace(silentFile("llama", ""), `"`+key+`"`, `"other"`, 1))); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: error %v", key, err)
		}
	}
	for _, c := range []struct{ kind, extra, key string }{
		{"llama", `"is_causal": false`, "is_causal"}, {"gemma", `"use_bidirectional_attention": true`, "use_bidirectional_attention"}, {"gemma3_text", `"use_bidirectional_attention": "all"`, "use_bidirectional_attention"},
		{"qwen3", `"per_layer_config": {"3": {"intermediate_size": 8}}`, "per_layer_config"}, {"gpt_oss", `"swiglu_alpha": 1.5`, "swiglu_alpha"},
		{"jamba", `"sliding_window": 5`, "sliding_window"}, {"nemotron_h", `"sliding_window": 5`, "sliding_window"}, {"granitemoehybrid", `"normalization_function": "layernorm"`, "normalization_function"},
		{"jamba", `"hidden_act": "gelu"`, "hidden_act"}, {"qwen3_5", `"hidden_act": "gelu"`, "hidden_act"}, {"falcon_h1", `"hidden_act": "gelu"`, "hidden_act"},
		{"kimi_linear", `"num_experts": 4, "num_experts_per_token": 2, "moe_intermediate_size": 8, "num_expert_group": 2, "use_grouped_topk": false`, "use_grouped_topk"},
		{"deepseek_v3", `"attention_bias": true`, "attention_bias"}, {"stablelm", `"qk_layernorm": true`, "qk_layernorm"},
	} {
		if _, err := ParseConfig([]byte(silentFile(c.kind, c.extra))); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), c.key) {
			t.Errorf("%s: %s: error %v", c.kind, c.extra, err)
		}
	}
	for _, value := range []string{"false", "null"} {
		text := strings.Replace(silentFile("kimi_linear", ""), `"mla_use_nope": true`, `"mla_use_nope": `+value, 1)
		if _, err := ParseConfig([]byte(text)); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "mla_use_nope") {
			t.Errorf("mla_use_nope %s: error %v", value, err)
		}
	}
}
