package rope

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// inWords says what a configuration rotates.
func inWords(cfg Config) string {
	if cfg.None {
		return "none"
	}
	text := fmt.Sprintf("%d of %d, %v, %.6g, %v", cfg.RotaryDim, cfg.HeadDim, cfg.Layout, cfg.Base, cfg.Scheme)
	if cfg.Offset > 0 {
		text += fmt.Sprintf(", from %d", cfg.Offset)
	}
	if cfg.Reverse {
		text += ", reversed"
	}
	if cfg.Sections != nil {
		text += fmt.Sprintf(", sections %v", cfg.Sections)
	}
	return text
}

// layersInWords joins the layers of a model, equal ones that follow each other as one.
func layersInWords(t *testing.T, m *HF) string {
	t.Helper()
	var runs []string
	last, times := "", 0
	flush := func() {
		if times > 0 {
			runs = append(runs, fmt.Sprintf("%dx %s", times, last))
		}
	}
	for i := range m.layers {
		cfg, err := m.Layer(i)
		must(t, err)
		if words := inWords(cfg); words != last {
			flush()
			last, times = words, 0
		}
		times++
	}
	flush()
	return strings.Join(runs, "; ")
}

// jsonList writes a list as JSON, n times over.
func jsonList(n int, values ...string) string {
	list := []string{}
	for range n {
		list = append(list, values...)
	}
	return "[" + strings.Join(list, ",") + "]"
}

// TestModels reads what published files leave out, by model type.
func TestModels(t *testing.T) {
	const full, sliding = `"full_attention"`, `"sliding_attention"`
	mla := `"hidden_size": 7168, "num_attention_heads": 64, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "num_hidden_layers": 2`
	for _, c := range []struct{ name, text, want string }{
		// Defaults of a class.
		{"GLM-4-9B", `{"model_type": "glm", "hidden_size": 4096, "num_attention_heads": 32, "head_dim": 128, "num_hidden_layers": 2}`, "2x 64 of 128, interleaved, 10000, plain"},
		{"GLM-4-0414", `{"model_type": "glm4", "hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 2}`, "2x 64 of 128, interleaved, 10000, plain"},
		{"GLM-4.5", `{"model_type": "glm4_moe", "hidden_size": 5120, "num_attention_heads": 96, "head_dim": 128, "num_hidden_layers": 2, "rope_theta": 1e6}`, "2x 64 of 128, half, 1e+06, plain"},
		{"StableLM", `{"model_type": "stablelm", "hidden_size": 2048, "num_attention_heads": 32, "num_hidden_layers": 2}`, "2x 16 of 64, half, 10000, plain"},
		{"a width that StableLM ignores", `{"model_type": "stablelm", "hidden_size": 2048, "num_attention_heads": 32, "head_dim": 128, "num_hidden_layers": 2}`, "2x 16 of 64, half, 10000, plain"},
		{"a fraction that Llama ignores", `{"model_type": "llama", "head_dim": 8, "num_hidden_layers": 1, "partial_rotary_factor": 0.5}`, "1x 8 of 8, half, 10000, plain"},
		{"a fraction within that Qwen ignores", `{"model_type": "qwen3", "head_dim": 6, "num_hidden_layers": 1, "rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}`, "1x 6 of 6, half, 10000, plain"},
		{"a fraction of scaled heads", `{"model_type": "llama", "head_dim": 8, "num_hidden_layers": 1, "partial_rotary_factor": 0.5, "rope_scaling": {"type": "linear", "factor": 2}}`, "1x 4 of 8, half, 10000, linear, factor 2"},
		{"GPT-NeoX", `{"model_type": "gpt_neox", "hidden_size": 6144, "num_attention_heads": 64, "num_hidden_layers": 2}`, "2x 24 of 96, half, 10000, plain"},
		{"Command A+", `{"model_type": "cohere2_moe", "num_attention_heads": 64, "num_hidden_layers": 5, "first_k_dense_replace": 1, "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "sliding_attention", "full_attention"], "rope_theta": 50000}`, "4x 128 of 128, interleaved, 50000, plain; 1x none"},
		{"Mistral Small 4", `{"model_type": "mistral3", "text_config": {"model_type": "mistral4", "num_attention_heads": 32, "hidden_size": 4096, "num_hidden_layers": 1, "rope_interleave": true, "head_dim": 128, "qk_rope_head_dim": 64}}`,
			"1x 64 of 64, interleaved, 10000, YaRN, factor 128, original 8192, beta 32 and 1"},
		{"ZAYA1", `{"model_type": "zaya", "hidden_size": 2048, "num_attention_heads": 8, "num_hidden_layers": 2, "layer_types": ["hybrid", "hybrid_sliding"]}`, "1x 64 of 128, half, 5e+06, plain; 1x 64 of 128, half, 10000, plain"},
		{"Moonshine", `{"model_type": "moonshine", "hidden_size": 416, "decoder_num_attention_heads": 8, "encoder_num_attention_heads": 8, "decoder_num_hidden_layers": 1}`, "1x 46 of 52, interleaved, 10000, plain"},
		{"numbers as Python writes them", `{"model_type": "llama", "head_dim": 8, "num_hidden_layers": 1, "a": NaN, "b": [-Infinity, {"__float__": "Infinity"}]}`, "1x 8 of 8, half, 10000, plain"},
		{"Nemotron", `{"model_type": "nemotron", "hidden_size": 6144, "num_attention_heads": 48, "num_hidden_layers": 2}`, "2x 64 of 128, half, 10000, plain"},
		{"Phi-2", `{"model_type": "phi", "hidden_size": 2560, "num_attention_heads": 32, "partial_rotary_factor": 0.4, "num_hidden_layers": 2}`, "2x 32 of 80, half, 10000, plain"},
		{"Phi", `{"model_type": "phi", "hidden_size": 2048, "num_attention_heads": 32, "num_hidden_layers": 2}`, "2x 32 of 64, half, 10000, plain"},
		{"Persimmon", `{"model_type": "persimmon", "hidden_size": 4096, "num_attention_heads": 64, "rope_theta": 25000.0, "num_hidden_layers": 2}`, "2x 32 of 64, half, 25000, plain"},
		{"RecurrentGemma", `{"model_type": "recurrent_gemma", "hidden_size": 2560, "num_attention_heads": 10, "block_types": ["recurrent", "recurrent", "attention"], "num_hidden_layers": 4}`,
			"2x none; 1x 128 of 256, half, 10000, plain; 1x none"},
		{"Qwen3-Next", `{"model_type": "qwen3_next", "hidden_size": 2048, "num_attention_heads": 16, "rope_theta": 1e7, "num_hidden_layers": 4}`, "3x none; 1x 64 of 256, half, 1e+07, plain"},
		{"Qwen3.5", `{"model_type": "qwen3_5", "text_config": {"model_type": "qwen3_5_text", "hidden_size": 2048, "num_attention_heads": 8, "num_hidden_layers": 4, "rope_parameters": {"rope_type": "default", "rope_theta": 1e7, "mrope_section": [11, 11, 10], "mrope_interleaved": true}}}`,
			"3x none; 1x 64 of 256, half, 1e+07, plain, sections [11 11 10]"},
		{"Mixtral", `{"model_type": "mixtral", "hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 2}`, "2x 128 of 128, half, 1e+06, plain"},
		{"Gemma", `{"model_type": "gemma", "hidden_size": 2048, "num_attention_heads": 8, "num_hidden_layers": 2}`, "2x 256 of 256, half, 10000, plain"},
		{"LLaVA 1.5", `{"model_type": "llava", "text_config": {"model_type": "llama", "max_position_embeddings": 4096}}`, ""},
		{"gpt-oss", `{"model_type": "gpt_oss", "hidden_size": 2880, "num_attention_heads": 64, "num_hidden_layers": 2, "max_position_embeddings": 131072}`,
			"2x 64 of 64, half, 150000, YaRN, factor 32, original 4096, beta 32 and 1"},
		{"MiniMax-M2", `{"model_type": "minimax_m2", "hidden_size": 3072, "num_attention_heads": 48, "head_dim": 128, "rotary_dim": 64, "num_hidden_layers": 2}`, "2x 64 of 128, half, 5e+06, plain"},
		{"CodeGen", `{"model_type": "codegen", "n_embd": 1024, "n_head": 16, "n_layer": 2}`, "2x 64 of 64, interleaved, 10000, plain"},

		// Rules of layers.
		{"OLMo 3", `{"model_type": "olmo3", "hidden_size": 5120, "num_attention_heads": 40, "num_hidden_layers": 8, "max_position_embeddings": 65536, "rope_theta": 500000,
			"layer_types": ` + jsonList(2, sliding, sliding, sliding, full) + `, "rope_scaling": {"rope_type": "yarn", "factor": 8, "original_max_position_embeddings": 8192, "attention_factor": 1.2079441541679836, "beta_fast": 32, "beta_slow": 1}}`,
			"3x 128 of 128, half, 500000, plain; 1x 128 of 128, half, 500000, YaRN, factor 8, original 8192, beta 32 and 1; 3x 128 of 128, half, 500000, plain; 1x 128 of 128, half, 500000, YaRN, factor 8, original 8192, beta 32 and 1"},
		{"MiMo-V2-Flash", `{"model_type": "mimo_v2_flash", "hidden_size": 4096, "num_attention_heads": 64, "head_dim": 192, "swa_head_dim": 192, "num_hidden_layers": 4, "hybrid_layer_pattern": [0, 1, 1, 0], "rope_theta": 5e6, "swa_rope_theta": 1e4, "partial_rotary_factor": 0.334}`,
			"1x 64 of 192, half, 5e+06, plain; 2x 64 of 192, half, 10000, plain; 1x 64 of 192, half, 5e+06, plain"},
		{"DeepSeek-V4", `{"model_type": "deepseek_v4", "hidden_size": 4096, "num_attention_heads": 64, "head_dim": 512, "qk_rope_head_dim": 64, "num_hidden_layers": 4, "compress_ratios": [0, 128, 4, 0, 0], "max_position_embeddings": 1048576,
			"rope_theta": 10000, "compress_rope_theta": 160000, "rope_scaling": {"type": "yarn", "factor": 16, "original_max_position_embeddings": 65536, "beta_fast": 32, "beta_slow": 1}}`,
			"1x 64 of 512, interleaved, 10000, plain, from 448; 2x 64 of 512, interleaved, 160000, YaRN, factor 16, original 65536, beta 32 and 1, from 448; 1x 64 of 512, interleaved, 10000, plain, from 448"},
		{"DeepSeek-V4, v5", `{"model_type": "deepseek_v4", "num_attention_heads": 64, "num_hidden_layers": 2, "layer_types": ["sliding_attention", "compressed_sparse_attention"], "rope_parameters":
			{"main": {"rope_type": "default", "rope_theta": 10000, "partial_rotary_factor": 0.125}, "compress": {"rope_type": "default", "rope_theta": 160000, "partial_rotary_factor": 0.125}}}`,
			"1x 64 of 512, interleaved, 10000, plain, from 448; 1x 64 of 512, interleaved, 160000, plain, from 448"},
		{"Gemma 3n", `{"model_type": "gemma3n", "text_config": {"model_type": "gemma3n_text", "hidden_size": 2048, "num_attention_heads": 8, "num_hidden_layers": 5}}`,
			"4x 256 of 256, half, 10000, plain; 1x 256 of 256, half, 1e+06, plain"},
		{"Step 3.5", `{"model_type": "step3p5", "hidden_size": 4096, "num_attention_heads": 64, "head_dim": 128, "num_hidden_layers": 3, "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
			"rope_theta": [5e6, 1e4, 1e4, 5e6], "partial_rotary_factors": [0.5, 1, 1, 0.5], "yarn_only_types": ["full_attention"], "use_rope_layers": [],
			"rope_scaling": {"rope_type": "llama3", "factor": 2, "original_max_position_embeddings": 131072, "low_freq_factor": 1, "high_freq_factor": 32}}`,
			"1x 64 of 128, half, 5e+06, Llama 3, factor 2, original 131072, low and high frequency factors 1 and 32; 2x 128 of 128, half, 10000, plain"},
		{"per-layer bases", `{"head_dim": 8, "num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"], "layer_rope_theta": [500000.0, 0.0]}`, "1x 8 of 8, half, 500000, plain; 1x none"},

		// Layers and models without rotation.
		{"Llama 4", `{"model_type": "llama4_text", "hidden_size": 5120, "num_attention_heads": 40, "num_hidden_layers": 5}`, "3x 128 of 128, interleaved, 500000, plain; 1x none; 1x 128 of 128, interleaved, 500000, plain"},
		{"SmolLM3", `{"model_type": "smollm3", "hidden_size": 2048, "num_attention_heads": 16, "num_hidden_layers": 4, "no_rope_layers": [1, 0, 1, 1], "rope_theta": 5e6}`, "1x 128 of 128, half, 5e+06, plain; 1x none; 2x 128 of 128, half, 5e+06, plain"},
		{"EXAONE 4 32B", `{"model_type": "exaone4", "hidden_size": 5120, "num_attention_heads": 40, "num_hidden_layers": 4, "sliding_window": 4096, "sliding_window_pattern": "LLLG"}`, "3x 128 of 128, half, 10000, plain; 1x none"},
		{"EXAONE 4 1.2B", `{"model_type": "exaone4", "hidden_size": 2048, "num_attention_heads": 32, "num_hidden_layers": 2, "sliding_window": null, "layer_types": ["full_attention", "full_attention"]}`, "2x 64 of 64, half, 10000, plain"},
		{"Command R7B", `{"model_type": "cohere2", "hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 4, "sliding_window": 4096, "sliding_window_pattern": 4, "rope_theta": 50000}`, "3x 128 of 128, interleaved, 50000, plain; 1x none"},
		{"Kimi Linear", `{"model_type": "kimi_linear", "head_dim": 72, "linear_attn_config": {"full_attn_layers": [2], "kda_layers": [1]}, "mla_use_nope": true, ` + mla + `}`, "2x none"},
		{"Kimi Linear with rotation", `{"model_type": "kimi_linear", "head_dim": 72, "linear_attn_config": {"full_attn_layers": [2], "kda_layers": [1]}, "mla_use_nope": false, ` + mla + `}`, "1x none; 1x 64 of 64, interleaved, 10000, plain"},
		{"Jamba", `{"model_type": "jamba", "hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 2}`, "2x none"},
		{"Granite 4 H", `{"model_type": "granitemoehybrid", "hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 2, "position_embedding_type": "nope", "layer_types": ["mamba", "attention"], "rope_theta": 10000}`, "2x none"},
		{"Granite 4", `{"model_type": "granitemoehybrid", "hidden_size": 2048, "num_attention_heads": 32, "num_hidden_layers": 2, "position_embedding_type": "rope", "layer_types": ["mamba", "attention"], "rope_theta": 10000}`, "1x none; 1x 64 of 64, half, 10000, plain"},

		// Layouts.
		{"Kimi K2", `{"model_type": "kimi_k2", "rope_theta": 50000, ` + mla + `}`, "2x 64 of 64, interleaved, 50000, plain"},
		{"LongCat-Flash", `{"model_type": "longcat_flash", ` + mla + `}`, "2x 64 of 64, interleaved, 1e+07, plain"},
		{"ERNIE 4.5", `{"model_type": "ernie4_5_moe", "hidden_size": 2560, "num_attention_heads": 20, "num_hidden_layers": 2}`, "2x 128 of 128, interleaved, 500000, plain"},
		{"GLM-4.1V", `{"model_type": "glm4v", "text_config": {"model_type": "glm4v_text", "hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 2, "partial_rotary_factor": 0.5, "rope_theta": 10000, "rope_scaling": {"type": "default", "mrope_section": [8, 12, 12]}}}`,
			"2x 64 of 128, interleaved, 10000, plain, sections [8 12 12]"},
		{"GLM-5", `{"model_type": "glm_moe_dsa", "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}, "head_dim": 64, ` + mla + `}`, "2x 64 of 64, interleaved, 1e+06, plain"},
		{"DeepSeek-V3.2", `{"model_type": "deepseek_v32", "rope_theta": 10000, ` + mla + `}`, "2x 64 of 64, interleaved, 10000, plain"},
		{"DeepSeek-V3, halves", `{"model_type": "deepseek_v3", "rope_interleave": false, ` + mla + `}`, "2x 64 of 64, half, 10000, plain"},
		{"MiniCPM3", `{"model_type": "minicpm3", "hidden_size": 2560, "num_attention_heads": 40, "kv_lora_rank": 256, "qk_rope_head_dim": 32, "num_hidden_layers": 1}`, "1x 32 of 32, half, 10000, plain"},
		{"ChatGLM3", `{"model_type": "chatglm", "hidden_size": 4096, "num_attention_heads": 32, "kv_channels": 128, "num_layers": 2, "seq_length": 8192, "original_rope": true}`, "2x 64 of 128, interleaved, 10000, plain"},
		{"nanochat", `{"model_type": "nanochat", "hidden_size": 768, "num_attention_heads": 6, "num_hidden_layers": 2}`, "2x 128 of 128, half, 10000, plain, reversed"},

		// Keys of models outside of transformers.
		{"glm-4-9b-chat-1m", `{"model_type": "chatglm", "hidden_size": 4096, "num_attention_heads": 32, "kv_channels": 128, "num_layers": 2, "rope_ratio": 10000}`, "2x 64 of 128, interleaved, 1e+08, plain"},
		{"DBRX", `{"model_type": "dbrx", "d_model": 6144, "n_heads": 48, "n_layers": 2, "attn_config": {"rope_theta": 500000, "kv_n_heads": 8}}`, "2x 128 of 128, half, 500000, plain"},
		{"Hunyuan-A13B", `{"model_type": "hunyuan_v1_moe", "hidden_size": 4096, "num_attention_heads": 32, "head_dim": 128, "num_hidden_layers": 2, "max_position_embeddings": 32768, "rope_theta": 10000, "rope_scaling": {"type": "dynamic", "alpha": 1000, "factor": 1}}`,
			"2x 128 of 128, half, 1.11588e+07, plain"},
		{"InternLM 20B", `{"model_type": "internlm", "hidden_size": 5120, "num_attention_heads": 40, "num_hidden_layers": 1, "max_position_embeddings": 4096, "rotary": {"base": 20000, "type": "dynamic"}}`,
			"1x 128 of 128, half, 20000, dynamic NTK, factor 1 beyond 4096"},
		{"Bamba", `{"model_type": "bamba", "hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 2, "attn_layer_indices": [1], "attn_rotary_emb": 64}`, "1x none; 1x 64 of 128, half, 10000, plain"},
		{"ModernBERT", `{"model_type": "modernbert", "hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 4, "global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0, "position_embedding_type": "absolute"}`,
			"1x 64 of 64, half, 160000, plain; 2x 64 of 64, half, 10000, plain; 1x 64 of 64, half, 160000, plain"},
		{"OpenELM", `{"model_type": "openelm", "head_dim": 64, "num_transformer_layers": 2, "rope_freq_constant": 10000, "rope_max_length": 4096}`, "2x 64 of 64, half, 10000, plain"},
		{"RoFormer", `{"model_type": "roformer", "hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 1, "rotary_value": false}`, "1x 64 of 64, interleaved, 10000, plain"},
		{"nomic-embed", `{"model_type": "nomic_bert", "n_embd": 768, "n_head": 12, "n_layer": 2, "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": false, "rotary_scaling_factor": 2, "max_trained_positions": 2048}`,
			"2x 64 of 64, half, 1000, dynamic NTK, factor 2 beyond 2048"},

		// Widths.
		{"Ling 2.5", `{"model_type": "bailing_hybrid", "head_dim": 128, "partial_rotary_factor": 0.5, "rotary_dim": 64, "layer_group_size": 2, "rope_theta": 6000000, ` + mla + `}`,
			"1x 64 of 128, half, 6e+06, plain; 1x 64 of 64, interleaved, 6e+06, plain"},
		{"Ling 3", `{"model_type": "bailing_hybrid", "head_dim": 128, "short_conv_kernel_size": 4, "layer_group_size": 2, "rope_theta": 6000000, ` + mla + `}`, "1x none; 1x 64 of 64, interleaved, 6e+06, plain"},
		{"DeepSeek without latent attention", `{"model_type": "deepseek_vl_v2", "language_config": {"model_type": "deepseek_v2", "use_mla": false, "qk_rope_head_dim": 0, "hidden_size": 1280, "num_attention_heads": 10, "num_hidden_layers": 1}}`, "1x 128 of 128, half, 10000, plain"},

		// Nesting and overrides.
		{"Voxtral", `{"model_type": "voxtral", "hidden_size": 3072, "text_config": {"model_type": "llama", "hidden_size": 3072, "num_attention_heads": 32, "head_dim": 128, "num_hidden_layers": 2, "rope_theta": 1e8}}`, "2x 128 of 128, half, 1e+08, plain"},
		{"Qwen2.5-Omni", `{"model_type": "qwen2_5_omni", "thinker_config": {"text_config": {"hidden_size": 3584, "num_attention_heads": 28, "num_hidden_layers": 1, "rope_scaling": {"type": "default", "rope_type": "default", "mrope_section": [16, 24, 24]}}}}`, "1x 128 of 128, half, 1e+06, plain, sections [16 24 24]"},
		{"one object and null", `{"model_type": "gemma3_text", "head_dim": 256, "num_hidden_layers": 6, "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8, "rope_theta": 1e6}, "sliding_attention": null}}`,
			"5x 256 of 256, half, 10000, plain; 1x 256 of 256, half, 1e+06, linear, factor 8"},
		{"one object and a flat key", `{"head_dim": 8, "layer_types": ["sliding_attention", "full_attention"], "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8}, "rope_theta": 30000}}`,
			"1x 8 of 8, half, 30000, plain; 1x 8 of 8, half, 30000, linear, factor 8"},
		{"the inner fraction", `{"head_dim": 8, "num_hidden_layers": 1, "partial_rotary_factor": 1.0, "rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}`, "1x 4 of 8, half, 10000, plain"},
		{"sections of another width", `{"head_dim": 8, "num_hidden_layers": 1, "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}}`, "1x 8 of 8, half, 10000, plain"},
	} {
		m := mustHF(t, c.text, V5)
		if got := layersInWords(t, m); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
		if len(m.Unknown) > 0 && c.name != "sections of another width" {
			t.Errorf("%s: unknown keys %q", c.name, m.Unknown)
		}
	}
	if cfg, err := mustHF(t, `{"model_type": "llava", "text_config": {"model_type": "llama"}}`, V5).Layer(40); err != nil || inWords(cfg) != "128 of 128, half, 10000, plain" {
		t.Errorf("LLaVA 1.5: %s, error %v", inWords(cfg), err)
	}
	cfg, err := mustHF(t, `{"head_dim": 8, "partial_rotary_factor": 1.0, "rope_parameters": {"partial_rotary_factor": 0.5}}`, V4).Config("")
	if err != nil || cfg.RotaryDim != 8 {
		t.Errorf("the outer fraction in V4: %s, error %v", inWords(cfg), err)
	}
	hunyuan, err := mustHF(t, `{"model_type": "hunyuan", "hidden_size": 6400, "num_attention_heads": 80, "max_position_embeddings": 131072, "rope_theta": 10000.0, "rope_scaling": {"alpha": 1000.0, "factor": 1.0, "type": "dynamic"}}`, V5).Config("")
	if want := 10000 * math.Pow(1000, 80.0/78); err != nil || math.Abs(hunyuan.Base/want-1) > 1e-12 {
		t.Errorf("Hunyuan: base %v, want %v, error %v", hunyuan.Base, want, err)
	}
}

// TestModelsWithoutRotation: their encoding, and no error.
func TestModelsWithoutRotation(t *testing.T) {
	for text, want := range map[string]Encoding{
		`{"model_type": "falcon", "alibi": true, "hidden_size": 8, "num_attention_heads": 1}`:                   ALiBi,
		`{"model_type": "falcon", "alibi": false, "hidden_size": 8, "num_attention_heads": 1}`:                  Rotary,
		`{"model_type": "mpt", "d_model": 64, "n_heads": 8, "n_layers": 2, "attn_config": {"alibi": true}}`:     ALiBi,
		`{"model_type": "mpt", "d_model": 64, "n_heads": 8, "attn_config": {"alibi": false}}`:                   Absolute,
		`{"model_type": "mpt", "d_model": 64, "n_heads": 8, "attn_config": {"rope": true, "rope_theta": 5000}}`: Rotary,
		`{"model_type": "bloom"}`: ALiBi,
		`{"model_type": "baichuan", "hidden_size": 5120, "num_attention_heads": 40}`:                                   ALiBi,
		`{"model_type": "gpt2", "n_embd": 768, "n_head": 12}`:                                                          Absolute,
		`{"model_type": "bert", "hidden_size": 768, "num_attention_heads": 12, "position_embedding_type": "absolute"}`: Absolute,
		`{"model_type": "bert", "position_embedding_type": "alibi"}`:                                                   ALiBi,
		`{"model_type": "clip", "text_config": {"model_type": "clip_text_model"}, "vision_config": {}}`:                Absolute,
		`{"model_type": "t5"}`:    Relative,
		`{"model_type": "mamba"}`: NoPositions,
		`{"model_type": "llama", "hidden_size": 8, "num_attention_heads": 1, "position_embedding_type": "none"}`:            NoPositions,
		`{"model_type": "esm", "hidden_size": 8, "num_attention_heads": 1, "position_embedding_type": "rotary"}`:            Rotary,
		`{"model_type": "zamba2", "use_mem_rope": false}`:                                                                   NoPositions,
		`{"model_type": "zamba2", "attention_head_dim": 8, "use_mem_rope": true, "layers_block_type": ["mamba", "hybrid"]}`: Rotary,
	} {
		m := mustHF(t, text, V5)
		cfg, err := m.Config("")
		must(t, err)
		if m.Encoding != want || cfg.None != (want != Rotary) || len(m.Unknown) > 0 {
			t.Errorf("%s: %v, %s, unknown %q", text, m.Encoding, inWords(cfg), m.Unknown)
		}
		mustNew(t, cfg)
	}
}

// TestUnknownModel: an error that names it, or the file's own keys.
func TestUnknownModel(t *testing.T) {
	const text = `{"model_type": "frobnicator", "head_dim": 8, "rope_theta": 5000}`
	if _, err := FromHF([]byte(text), V5); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), `model_type is "frobnicator", which is not known`) {
		t.Errorf("error %v", err)
	}
	if _, err := FromHF([]byte(`{"model_type": "chatglm", "hidden_size": 4096, "num_attention_heads": 32, "position_encoding_2d": true}`), V5); !errors.Is(err, ErrConfig) {
		t.Errorf("ChatGLM's first: error %v", err)
	}
	cfg, err := mustHF(t, text, V4|AnyModel).Config("")
	if err != nil || inWords(cfg) != "8 of 8, half, 5000, plain" {
		t.Errorf("%s, error %v", inWords(cfg), err)
	}
}

// TestModelTable: every name has one row, and every row makes configurations.
func TestModelTable(t *testing.T) {
	for name, like := range sameModels {
		if _, ok := hfModels[like]; !ok {
			t.Errorf("%s is like %s, which has no row", name, like)
		}
		if _, ok := hfModels[name]; ok {
			t.Errorf("%s has a row and is like %s", name, like)
		}
	}
	for name := range hfModels {
		text := fmt.Sprintf(`{"model_type": %q, "hidden_size": 1024, "num_attention_heads": 8, "num_hidden_layers": 6, "max_position_embeddings": 4096}`, name)
		if name == "moonshine" { // 0.9 of 128 features is odd
			text = strings.Replace(text, "1024", "416", 1)
		}
		m := mustHF(t, text, V5)
		for _, kind := range m.Types {
			cfg, err := m.Config(kind)
			must(t, err)
			mustNew(t, cfg)
		}
		for i := range 6 {
			if cfg, err := m.Layer(i); err == nil {
				mustNew(t, cfg)
			} else {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if n := len(hfModels) + len(sameModels); n < 200 {
		t.Errorf("%d model types are known", n)
	}
}

// TestOwnNumbers: layers with bases of their own, by type and by layer.
func TestOwnNumbers(t *testing.T) {
	const text = `{"model_type": "step3p5", "num_attention_heads": 64, "num_hidden_layers": 2, "layer_types": ["full_attention", "sliding_attention"],
		"rope_theta": [5e6, 1e4%s], "partial_rotary_factors": [0.5, 1]}`
	m := mustHF(t, fmt.Sprintf(text, ""), V5)
	for name, want := range map[string]string{"full_attention": "64 of 128, half, 5e+06, plain", "sliding_attention": "128 of 128, half, 10000, plain"} {
		if cfg, err := m.Config(name); err != nil || inWords(cfg) != want {
			t.Errorf("%s: %s, error %v", name, inWords(cfg), err)
		}
	}
	if _, err := m.Config(""); !errors.Is(err, ErrConfig) {
		t.Errorf("types that differ: error %v", err)
	}
	if _, err := m.Layer(2); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "layer is 2, the config.json tells of 2") {
		t.Errorf("layer 2: error %v", err)
	}
	ling := mustHF(t, `{"model_type": "bailing_hybrid", "head_dim": 128, "qk_rope_head_dim": 64, "partial_rotary_factor": 0.5}`, V5)
	if cfg, err := ling.Config(""); err != nil || inWords(cfg) != "64 of 64, interleaved, 10000, plain" {
		t.Errorf("Ling 2.5: %s, error %v", inWords(cfg), err)
	}
	if cfg, err := mustHF(t, llama31, V5).Layer(99); err != nil || cfg.HeadDim != 128 {
		t.Errorf("layer 99 of layers that are alike: %s, error %v", inWords(cfg), err)
	}
	short := strings.Replace(fmt.Sprintf(text, ""), "[5e6, 1e4]", "[5e6]", 1)
	if _, err := FromHF([]byte(short), V5); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "has 1 elements, want 2") {
		t.Errorf("one base for two layers: error %v", err)
	}
}

// TestUnread: keys about positions that nothing reads, at every level.
func TestUnread(t *testing.T) {
	for text, want := range map[string]string{
		`{"head_dim": 8, "rope_ratio": 4}`:                                                                                     "rope_ratio",
		`{"head_dim": 8, "compress_rope_theta": 4e4}`:                                                                          "compress_rope_theta",
		`{"head_dim": 8, "use_dynamic_ntk": true}`:                                                                             "use_dynamic_ntk",
		`{"head_dim": 8, "scaling_factor": 2, "routed_scaling_factor": 2}`:                                                     "scaling_factor",
		`{"head_dim": 8, "rotary_scaling_factor": 2}`:                                                                          "rotary_scaling_factor",
		`{"head_dim": 8, "attn_config": {"rope_scaling": {"factor": 2}}}`:                                                      "attn_config.rope_scaling",
		`{"head_dim": 8, "rope_parameters": {"rope_type": "default", "a": {"b": 1}}}`:                                          "rope_parameters.a",
		`{"head_dim": 8, "nope_layer_interval": 4, "layers": [{"alibi_slopes": [1]}]}`:                                         "layers.alibi_slopes nope_layer_interval",
		`{"text_config": {"head_dim": 8, "rope_kind": 1}, "vision_config": {"rope_theta": 100, "max_position_embeddings": 9}}`: "text_config.rope_kind vision_config.rope_theta",
		`{"head_dim": 8, "rope_scaling": {"rope_type": "default", "type": "yarn"}}`:                                            "",
		`{"head_dim": 8, "rope_scaling": {"type": "dynamic", "alpha": 1000, "factor": 1}, "max_position_embeddings": 64}`:      "rope_scaling.alpha",
		`{"head_dim": 8, "rope_theta": null, "label2id": {"Europe": 1}, "properties": {}}`:                                     "",
		`{"rope_theta": 5, "rope_scaling": {"type": "linear", "factor": 2}, "text_config": {"head_dim": 8, "rope_theta": 5, "rope_scaling": {"type": "linear", "factor": 2}}}`: "",
		`{"rope_theta": 7, "text_config": {"head_dim": 8, "rope_theta": 5}}`:                                                                                                   "rope_theta",
		`{"head_dim": 8, "rope_scaling": {"mrope_section": [1, 1]}}`:                                                                                                           "rope_scaling.mrope_section",
	} {
		m := mustHF(t, text, V5)
		if got := strings.Join(m.Unknown, " "); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// TestPublished reads whole files of published models.
func TestPublished(t *testing.T) {
	folder := publishedConfigs(t)
	const scout, gemma4 = "interleaved, 500000, Llama 3, factor 8, original 8192, low and high frequency factors 1 and 4", "1x 512 of 512, half, 1e+06, proportional, fraction 0.25, factor 1"
	for name, want := range map[string]string{
		"deepseek-v2-lite":      "27x 64 of 64, interleaved, 10000, YaRN, factor 40, original 4096, beta 32 and 1",
		"gemma-3-12b-published": strings.TrimSuffix(strings.Repeat("5x 256 of 256, half, 10000, plain; 1x 256 of 256, half, 1e+06, linear, factor 8; ", 8), "; "),
		"gemma-4-31b":           strings.TrimSuffix(strings.Repeat("5x 256 of 256, half, 10000, plain; "+gemma4+"; ", 10), "; "),
		"glm-4.5":               "92x 64 of 128, half, 1e+06, plain",
		"gpt-oss-20b":           "24x 64 of 64, half, 150000, YaRN, factor 32, original 4096, beta 32 and 1",
		"kimi-k2":               "61x 64 of 64, interleaved, 50000, YaRN, factor 32, original 4096, beta 1 and 1",
		"llama-4-scout":         strings.TrimSuffix(strings.Repeat("3x 128 of 128, "+scout+"; 1x none; ", 12), "; "),
		"mpt-7b":                "32x none",
		"phi-3.5-vision":        "32x 96 of 96, half, 10000, LongRoPE, factor 32, original 4096",
		"smollm3":               strings.TrimSuffix(strings.Repeat("3x 128 of 128, half, 5e+06, plain; 1x none; ", 9), "; "),
		"hunyuan-large":         "",
		"qwen2.5-vl-7b":         "",
	} {
		data, err := os.ReadFile(filepath.Join(folder, name+".json"))
		must(t, err)
		m, err := FromHF(data, V5)
		must(t, err)
		if got := layersInWords(t, m); got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
		if len(m.Unknown) > 0 {
			t.Errorf("%s: unknown keys %q", name, m.Unknown)
		}
		switch name {
		case "hunyuan-large", "qwen2.5-vl-7b":
			cfg, err := m.Config("")
			must(t, err)
			want := "80 of 80, half, 1.19378e+07, plain"
			if name == "qwen2.5-vl-7b" {
				want = "128 of 128, half, 1e+06, plain, sections [16 24 24]"
			}
			if inWords(cfg) != want {
				t.Errorf("%s: %s, want %s", name, inWords(cfg), want)
			}
		}
	}
}

// publishedConfigs finds the folder of published files beside the module, or skips.
func publishedConfigs(t *testing.T) string {
	t.Helper()
	for _, folder := range []string{"../../shared/data/configs", "../../../shared/data/configs"} {
		if _, err := os.Stat(folder); err == nil {
			return folder
		}
	}
	t.Skip("no ../shared/data/configs beside the module: published files are not read")
	return ""
}

// TestEmptyTypes: a list of layer types without elements says nothing.
func TestEmptyTypes(t *testing.T) {
	m, err := FromHF([]byte(`{"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "layer_types": []}`), V5)
	if err != nil {
		t.Fatal(err)
	}
	if cfg, err := m.Layer(1); err != nil || cfg.HeadDim != 8 {
		t.Errorf("%+v, %v", cfg, err)
	}
}
