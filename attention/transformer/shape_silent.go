package transformer

import "encoding/json"

// classes has, by model type, what its configuration class says of sizes and of the tokens
// that begin and end a text: configuration_*.py of transformers 5; kimi_linear: of the code
// published with it; kimi_k2: as deepseek_v3.
var classes = map[string]string{
	"llama": llamaClass, "granite": llamaClass, "mistral": mistralClass, "ministral": mistralClass, "qwen2": qwen2Class, "qwen3": qwen2Class, "olmo2": olmo2Class, "olmo3": olmo2Class, "cohere": cohereClass, "cohere2": cohereClass,
	"deepseek_v3": deepSeekClass, "kimi_k2": deepSeekClass, "qwen3_5": qwen35Class, "qwen3_5_text": qwen35Class, "qwen3_5_moe": qwen35MoEClass, "qwen3_5_moe_text": qwen35MoEClass,
	"gemma2": gemma2Class + `, "vocab_size": 256000, "max_position_embeddings": 8192`, "gemma3_text": gemma2Class + `, "vocab_size": 262208, "max_position_embeddings": 131072`,
	"mixtral": mistralClass + `, "num_local_experts": 8, "num_experts_per_tok": 2`,
	"qwen3_moe": `"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 24, "num_attention_heads": 32, "num_key_value_heads": 4, "vocab_size": 151936,
		"max_position_embeddings": 32768, "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768`,
	"smollm3": `"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 4, "vocab_size": 128256,
		"max_position_embeddings": 32768, "bos_token_id": 128000, "eos_token_id": 128001`,
	"phi3": `"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 32064, "max_position_embeddings": 4096,
		"bos_token_id": 1, "eos_token_id": 32000`,
	"gemma": `"hidden_size": 3072, "intermediate_size": 24576, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 256000,
		"max_position_embeddings": 8192, "bos_token_id": 2, "eos_token_id": 1`,
	"gpt_oss": `"hidden_size": 2880, "intermediate_size": 2880, "num_hidden_layers": 36, "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 201088,
		"max_position_embeddings": 131072, "num_local_experts": 128, "num_experts_per_tok": 4`,
	"seed_oss": `"hidden_size": 4096, "intermediate_size": 27648, "num_hidden_layers": 64, "num_attention_heads": 80, "num_key_value_heads": 8, "vocab_size": 155136,
		"max_position_embeddings": 524288, "bos_token_id": 0, "eos_token_id": 2`,
	"exaone4": `"hidden_size": 4096, "intermediate_size": 16384, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 102400,
		"max_position_embeddings": 2048, "bos_token_id": 0, "eos_token_id": 2`,
	"hunyuan_v1_dense": `"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 290943, "max_position_embeddings": 2048,
		"bos_token_id": 1, "eos_token_id": 2`,
	"ministral3": `"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 34, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 131072,
		"max_position_embeddings": 262144, "bos_token_id": 1, "eos_token_id": 2`,
	"starcoder2": `"hidden_size": 3072, "intermediate_size": 12288, "num_hidden_layers": 30, "num_attention_heads": 24, "num_key_value_heads": 2, "vocab_size": 49152,
		"max_position_embeddings": 4096, "bos_token_id": 50256, "eos_token_id": 50256`,
	"stablelm": `"hidden_size": 2560, "intermediate_size": 6912, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 50304,
		"max_position_embeddings": 4096, "bos_token_id": 0, "eos_token_id": 0`,
	"glm4": `"hidden_size": 4096, "intermediate_size": 13696, "num_hidden_layers": 40, "num_attention_heads": 32, "num_key_value_heads": 2, "vocab_size": 151552,
		"max_position_embeddings": 131072, "eos_token_id": [151329, 151336, 151338]`,
	"bamba": bambaClass + `, "vocab_size": 128000, "max_position_embeddings": 262144`, "jamba": bambaClass + `, "vocab_size": 65536, "max_position_embeddings": 262144`,
	"falcon_h1":        bambaClass + `, "vocab_size": 128000, "max_position_embeddings": 8192, "mamba_d_ssm": 1024`,
	"granitemoehybrid": llamaClass + `, "shared_intermediate_size": 1024`,
	"nemotron_h": `"hidden_size": 4096, "intermediate_size": 21504, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 131072, "max_position_embeddings": 4096,
		"mamba_num_heads": 128, "mamba_head_dim": 64, "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 7688,
		"moe_shared_expert_intermediate_size": 7688, "bos_token_id": 1, "eos_token_id": 2`,
	"qwen3_next": linearClass + `, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 48, "num_attention_heads": 16, "num_key_value_heads": 2, "vocab_size": 151936,
		"num_experts": 512, "num_experts_per_tok": 10, "moe_intermediate_size": 512, "shared_expert_intermediate_size": 512`,
	"kimi_linear": `"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 163840, "bos_token_id": 1, "eos_token_id": 2`,
	"olmo_hybrid": `"hidden_size": 3840, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 30, "vocab_size": 100352, "max_position_embeddings": 65536,
		"eos_token_id": 100257`,
}

// What several of them have.
const (
	llamaClass = `"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 32000, "max_position_embeddings": 2048,
		"bos_token_id": 1, "eos_token_id": 2`
	mistralClass = `"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000,
		"max_position_embeddings": 131072, "bos_token_id": 1, "eos_token_id": 2`
	qwen2Class = `"hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 151936,
		"max_position_embeddings": 32768`
	gemma2Class = `"hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4, "bos_token_id": 2, "eos_token_id": 1`
	olmo2Class  = `"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 50304, "max_position_embeddings": 2048,
		"eos_token_id": 50279`
	cohereClass = `"hidden_size": 8192, "intermediate_size": 22528, "num_hidden_layers": 40, "num_attention_heads": 64, "vocab_size": 256000, "max_position_embeddings": 8192,
		"bos_token_id": 5, "eos_token_id": 255001`
	deepSeekClass = `"hidden_size": 7168, "intermediate_size": 18432, "num_hidden_layers": 61, "num_attention_heads": 128, "vocab_size": 129280,
		"max_position_embeddings": 4096, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "n_routed_experts": 256,
		"num_experts_per_tok": 8, "moe_intermediate_size": 2048, "bos_token_id": 0, "eos_token_id": 1`
	linearClass = `"linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_value_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 32,
		"max_position_embeddings": 32768`
	qwen35Class    = linearClass + `, "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 32, "num_attention_heads": 16, "num_key_value_heads": 4, "vocab_size": 248320`
	qwen35MoEClass = linearClass + `, "hidden_size": 2048, "num_hidden_layers": 40, "num_attention_heads": 16, "num_key_value_heads": 2, "vocab_size": 248320, "num_experts": 256,
		"num_experts_per_tok": 8, "moe_intermediate_size": 512, "shared_expert_intermediate_size": 512`
	bambaClass = `"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "bos_token_id": 1, "eos_token_id": 2`
)

// otherNames are keys of classes that files may have under another name.
var otherNames = map[string]string{
	"num_local_experts": "num_experts", "num_experts": "num_local_experts", "n_routed_experts": "num_local_experts", "num_experts_per_tok": "experts_per_token",
}

// complete gives f, the text part of top or top itself, the keys that its model type's class
// has and it is silent about, and returns the text of the whole. The text_config of a file for
// several media is written as the difference from the class, so that all of its keys count
// (Gemma 3's is silent about heads and vocabulary). Elsewhere a size that is not there is an
// error, and only the tokens that begin and end a text and the length that scaled frequencies
// refer to are those of the class.
//
// OLMo 3's base is another in the class of transformers 5, which files with rope_parameters are
// of; in 4.57, which others are of and which it was checked against, it is 10000.
func complete(top, f section, modelType string, nested bool) (text []byte) {
	class := section{err: top.err}
	if err := json.Unmarshal([]byte("{"+classes[modelType]+"}"), &class.values); err != nil {
		top.fail("%v", err)
	}
	for key, value := range class.values {
		_, there := f.values[key]
		_, other := f.values[otherNames[key]]
		if !there && !other && (nested || key == "bos_token_id" || key == "eos_token_id" || key == "max_position_embeddings") {
			f.values[key] = value
		}
	}
	if modelType == "olmo3" && !f.has("rope_parameters") && !f.has("rope_theta") {
		f.values["rope_theta"] = json.RawMessage("10000")
	}
	var err error
	if nested {
		top.values["text_config"], err = json.Marshal(f.values)
	}
	if err == nil {
		text, err = json.Marshal(top.values)
	}
	if err != nil {
		top.fail("%v", err)
	}
	return text
}

// refuse fails where a key says what would change results and is not computed.
func refuse(top, f section, modelType string) {
	for _, at := range []section{top, f} {
		if !at.flag("is_causal", true) {
			f.fail("is_causal is false: models that are not causal are not supported")
		}
		if at.has("use_bidirectional_attention") && string(at.values["use_bidirectional_attention"]) != "false" {
			f.fail("use_bidirectional_attention is set: models that are not causal are not supported")
		}
		if len(at.sub("per_layer_config").values) > 0 {
			f.fail("per_layer_config is set: layers that differ so are not supported")
		}
	}
	switch act := f.text("hidden_act", "silu"); modelType {
	case "bamba", "granitemoehybrid", "falcon_h1", "jamba", "qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text":
		if act != "silu" && act != "swish" {
			f.fail("hidden_act is %.100q, want silu, which recurrent layers have, too", act)
		}
	}
	switch modelType {
	case "jamba", "nemotron_h":
		if f.has("sliding_window") {
			f.fail("sliding_window is set, which is not read in a %s", modelType)
		}
	case "gpt_oss":
		if alpha := f.number("swiglu_alpha", 1.702); alpha != 1.702 {
			f.fail("swiglu_alpha is %v, want 1.702", alpha)
		}
	case "granitemoehybrid":
		if norm := f.text("normalization_function", "rmsnorm"); norm != "rmsnorm" {
			f.fail("normalization_function is %.100q, want rmsnorm", norm)
		}
	case "kimi_linear":
		if !f.flag("mla_use_nope", false) {
			f.fail("mla_use_nope is not true: latent attention that rotates is not read")
		}
	}
}
