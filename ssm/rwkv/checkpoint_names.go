package rwkv

import (
	"strings"

	"github.com/subquad/subquad/internal/lm"
)

// turned ends the names of matrices that stand transposed in a file.
const turned = ".turned"

// naming turns the names of flash linear attention into the official ones.
var naming = lm.Naming{
	Prefixes: []string{"model."},
	Rename: func(name string) string {
		switch name {
		case "embeddings.weight":
			return "emb.weight"
		case "norm.weight", "norm.bias":
			return "ln_out." + strings.TrimPrefix(name, "norm.")
		case "lm_head.weight":
			return "head.weight"
		}
		rest, ok := strings.CutPrefix(name, "layers.")
		if !ok {
			return name
		}
		return "blocks." + officialNames.Replace(rest)
	},
	Root: "emb.weight",
}

var officialNames = strings.NewReplacer(
	".pre_norm.", ".ln0.", ".attn_norm.", ".ln1.", ".ffn_norm.", ".ln2.",
	".attn.r_proj.", ".att.receptance.", ".attn.k_proj.", ".att.key.", ".attn.v_proj.", ".att.value.", ".attn.o_proj.", ".att.output.", ".attn.g_norm.", ".att.ln_x.",
	".attn.w_lora.lora.0.weight", ".att.w1"+turned, ".attn.w_lora.lora.2.weight", ".att.w2"+turned, ".attn.w_lora.lora.2.bias", ".att.w0",
	".attn.a_lora.lora.0.weight", ".att.a1"+turned, ".attn.a_lora.lora.2.weight", ".att.a2"+turned, ".attn.a_lora.lora.2.bias", ".att.a0",
	".attn.v_lora.lora.0.weight", ".att.v1"+turned, ".attn.v_lora.lora.2.weight", ".att.v2"+turned, ".attn.v_lora.lora.2.bias", ".att.v0",
	".attn.g_lora.lora.0.weight", ".att.g1"+turned, ".attn.g_lora.lora.2.weight", ".att.g2"+turned,
	".attn.", ".att.",
)
