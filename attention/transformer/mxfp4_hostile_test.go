package transformer

import (
	"bytes"
	"errors"
	"testing"
)

// TestExpertsTooLarge: experts whose numbers of elements go around in 32 bits are an error, not a
// tensor of none.
func TestExpertsTooLarge(t *testing.T) {
	const d, experts = 32, 1 << 14
	tensors := map[string]stored{}
	zero := func(name string, shape ...int) {
		n := 1
		for _, x := range shape {
			n *= x
		}
		tensors[name] = stored{"F8_E4M3", shape, make([]byte, n)}
	}
	zero("model.embed_tokens.weight", 2, d)
	zero("lm_head.weight", 2, d)
	zero("model.norm.weight", d)
	const layer = "model.layers.0."
	zero(layer+"input_layernorm.weight", d)
	zero(layer+"post_attention_layernorm.weight", d)
	zero(layer+"self_attn.sinks", 1)
	for _, part := range []string{"q", "k", "v", "o"} {
		zero(layer+"self_attn."+part+"_proj.weight", d, d)
		zero(layer+"self_attn."+part+"_proj.bias", d)
	}
	zero(layer+"mlp.router.weight", experts, d)
	zero(layer+"mlp.router.bias", experts)
	zero(layer+"mlp.experts.gate_up_proj", 0)
	zero(layer+"mlp.experts.gate_up_proj_bias", 0)
	zero(layer+"mlp.experts.down_proj", 0)
	zero(layer+"mlp.experts.down_proj_bias", experts*d)
	file := fileOf(t, tensors)
	config := `{"model_type": "gpt_oss", "hidden_size": 32, "vocab_size": 2, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 32,
		"intermediate_size": 262144, "num_local_experts": 16384, "num_experts_per_tok": 1, "rope_theta": 10000}`
	m, err := Read(bytes.NewReader(file), int64(len(file)), []byte(config), Config{})
	if m != nil || !errors.Is(err, ErrCheckpoint) {
		t.Errorf("%v", err)
	}
}
