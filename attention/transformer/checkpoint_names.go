package transformer

import (
	"strings"

	"github.com/subquad/subquad/internal/lm"
)

const (
	embedding = "embed_tokens.weight"
	headName  = "lm_head.weight"
)

// naming takes what stands before names away, and renames what model types call otherwise.
var naming = lm.Naming{
	Prefixes: []string{"backbone.", "model.", "language_model.", "model."},
	Rename:   rename,
	Root:     embedding, Prefix: "model.",
}

// renames are parts of names, in this order.
var renames = strings.NewReplacer(
	".block_sparse_moe.gate.", ".mlp.router.", ".mlp.gate.", ".mlp.router.", ".mixer.gate.", ".mixer.router.",
	".block_sparse_moe.experts.", ".mlp.experts.", ".block_sparse_moe.shared_experts.", ".mlp.shared_experts.", ".mlp.shared_expert.", ".mlp.shared_experts.",
	"query_layernorm", "q_norm", "key_layernorm", "k_norm", // Hunyuan
	"mlp.c_fc.", "mlp.up_proj.", "mlp.c_proj.", "mlp.down_proj.", // StarCoder 2
	".pre_ff_layernorm.", ".post_attention_layernorm.", ".feed_forward.", ".mlp.", // Bamba, Falcon-H1, Jamba
	".block_sparse_moe.input_linear.weight", ".mlp.experts.gate_up_proj", ".block_sparse_moe.output_linear.weight", ".mlp.experts.down_proj", // Granite 4
	".block_sparse_moe.router.layer.", ".mlp.router.", ".shared_mlp.input_linear.", ".mlp.shared_experts.gate_up_proj.", ".shared_mlp.output_linear.", ".mlp.shared_experts.down_proj.",
)

// expertRenames are those of Mixtral's experts.
var expertRenames = strings.NewReplacer(".w1.", ".gate_proj.", ".w3.", ".up_proj.", ".w2.", ".down_proj.")

func rename(name string) string {
	switch name {
	case "embeddings.weight": // Nemotron-H
		return embedding
	case "final_layernorm.weight", "norm_f.weight":
		return "norm.weight"
	}
	name = renames.Replace(name)
	if strings.Contains(name, ".mlp.experts.") {
		name = expertRenames.Replace(name)
	}
	if parts := strings.SplitN(name, ".", 4); len(parts) == 4 && parts[0] == "layers" && parts[2] == "norm" { // Nemotron-H
		parts[2] = "input_layernorm"
		name = strings.Join(parts, ".")
	}
	return name
}
