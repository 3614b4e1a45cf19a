package transformer

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/subquad/subquad/internal/weights/weightstest"
)

// maker puts random tensors under published names.
type maker struct {
	weightstest.State
	r *rand.Rand
	n int // hidden_size
}

func (m maker) linear(name string, out, in int) {
	m.Put(m.r, name+".weight", 1/math.Sqrt(float64(in)), 0, out, in)
}
func (m maker) norm(name string, n int) { m.Put(m.r, name+".weight", 0.2, 1, n) }
func (m maker) bias(name string, n int) { m.Put(m.r, name+".bias", 0.3, 0, n) }

func (m maker) attention(p string, heads, kvHeads, wide int) {
	m.linear(p+"q_proj", heads*wide, m.n)
	m.linear(p+"k_proj", kvHeads*wide, m.n)
	m.linear(p+"v_proj", kvHeads*wide, m.n)
	m.linear(p+"o_proj", m.n, heads*wide)
}

func (m maker) mamba2(p string, heads, wide, groups, states, taps int, norm bool) {
	inner, conv := heads*wide, heads*wide+2*groups*states
	m.linear(p+"in_proj", inner+conv+heads, m.n)
	m.Put(m.r, p+"conv1d.weight", 0.5, 0, conv, 1, taps)
	m.bias(p+"conv1d", conv)
	m.Put(m.r, p+"dt_bias", 1, -1, heads)
	m.Put(m.r, p+"A_log", 1, 0, heads)
	m.Put(m.r, p+"D", 1, 0, heads)
	if norm {
		m.norm(p+"norm", inner)
	}
	m.linear(p+"out_proj", m.n, inner)
}

func (m maker) mlp(p string, inner int) {
	m.linear(p+"gate_proj", inner, m.n)
	m.linear(p+"up_proj", inner, m.n)
	m.linear(p+"down_proj", m.n, inner)
}

func (m maker) ends(embedding, norm string, vocab int) {
	m.Put(m.r, embedding+".weight", 1, 0, vocab, m.n)
	m.norm(norm, m.n)
	m.linear("lm_head", vocab, m.n)
}

// hybridModel is a hybrid with random weights.
type hybridModel struct {
	config string
	put    func(m maker)
	run    func(r *reference, x []vector) []vector // from the embeddings to the last norm
	out    func(r *reference) (norm string, eps, embedding, logits float64)
}

func lastNorm(name string) func(r *reference) (string, float64, float64, float64) {
	return func(r *reference) (string, float64, float64, float64) {
		return name, r.number("rms_norm_eps", r.number("layer_norm_epsilon", 1e-5)), r.number("embedding_multiplier", 1), r.number("lm_head_multiplier", 1) / r.number("logits_scaling", 1)
	}
}

var ones = [5]float64{1, 1, 1, 1, 1}

// add returns x + scale y.
func addRows(x, y []vector, scale float64) (z []vector) {
	for t := range x {
		z = append(z, plus(x[t], times(y[t], scale)))
	}
	return z
}

func isMamba(i int) bool { return i != 1 }

var mambaHybrids = map[string]hybridModel{
	"bamba": {
		config: `{"model_type": "bamba", "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 41,
			"head_dim": 8, "rms_norm_eps": 1e-5, "attn_layer_indices": [1], "mamba_n_heads": 6, "mamba_d_head": "auto", "mamba_n_groups": 2, "mamba_d_state": 7, "mamba_d_conv": 4, "mamba_expand": 2,
			"rope_theta": 10000.0, "max_position_embeddings": 512, "tie_word_embeddings": false}`,
		put: func(m maker) {
			m.ends("model.embed_tokens", "model.final_layernorm", 41)
			for i := range 3 {
				p := fmt.Sprintf("model.layers.%d.", i)
				m.norm(p+"input_layernorm", m.n)
				m.norm(p+"pre_ff_layernorm", m.n)
				m.mlp(p+"feed_forward.", 20)
				if isMamba(i) {
					m.mamba2(p+"mamba.", 6, 8, 2, 7, 4, true)
				} else {
					m.attention(p+"self_attn.", 4, 2, 8)
				}
			}
		},
		run: func(r *reference, x []vector) []vector {
			eps := r.number("rms_norm_eps", 0)
			for i := range r.int("num_hidden_layers") {
				p := fmt.Sprintf("layers.%d.", i)
				h := each(x, func(v vector) vector { return rms(v, r.vec(p+"input_layernorm.weight"), eps) })
				if isMamba(i) {
					h = r.mamba2(p+"mamba.", mamba2{heads: 6, wide: 8, groups: 2, states: 7, normGroups: 1, eps: eps, in: 1, out: 1, by: ones, limit: [2]float64{0, 1e9}}, h)
				} else { // half of a head rotates
					h = r.attention(p+"self_attn.", attentionNumbers{4, 2, 8, 4, 1 / math.Sqrt(8), 1e4, 1, 1, 1}, h)
				}
				x = addRows(x, h, 1)
				x = addRows(x, each(x, func(v vector) vector {
					return r.gated(p+"feed_forward.", rms(v, r.vec(p+"pre_ff_layernorm.weight"), eps), 1, 1)
				}), 1)
			}
			return x
		},
		out: lastNorm("final_layernorm.weight"),
	},
	"granitemoehybrid": {
		config: `{"model_type": "granitemoehybrid", "hidden_size": 24, "intermediate_size": 10, "shared_intermediate_size": 14, "num_hidden_layers": 3, "num_attention_heads": 4,
			"num_key_value_heads": 2, "vocab_size": 41, "rms_norm_eps": 1e-5, "layer_types": ["mamba", "attention", "mamba"], "mamba_n_heads": 6, "mamba_d_head": 8, "mamba_n_groups": 1,
			"mamba_d_state": 7, "mamba_d_conv": 4, "mamba_expand": 2, "position_embedding_type": "nope", "rope_theta": 10000, "num_local_experts": 5, "num_experts_per_tok": 2,
			"embedding_multiplier": 3, "residual_multiplier": 0.4, "attention_multiplier": 0.3, "logits_scaling": 2, "tie_word_embeddings": false, "time_step_limit": [0.0, Infinity]}`,
		put: func(m maker) {
			m.ends("model.embed_tokens", "model.norm", 41)
			for i := range 3 {
				p := fmt.Sprintf("model.layers.%d.", i)
				m.norm(p+"input_layernorm", m.n)
				m.norm(p+"post_attention_layernorm", m.n)
				m.linear(p+"shared_mlp.input_linear", 28, m.n)
				m.linear(p+"shared_mlp.output_linear", m.n, 14)
				m.linear(p+"block_sparse_moe.router.layer", 5, m.n)
				m.Put(m.r, p+"block_sparse_moe.input_linear.weight", 0.3, 0, 5, 20, m.n)
				m.Put(m.r, p+"block_sparse_moe.output_linear.weight", 0.3, 0, 5, m.n, 10)
				if isMamba(i) {
					m.mamba2(p+"mamba.", 6, 8, 1, 7, 4, true)
				} else {
					m.attention(p+"self_attn.", 4, 2, 6)
				}
			}
		},
		run: func(r *reference, x []vector) []vector {
			eps, by := r.number("rms_norm_eps", 0), r.number("residual_multiplier", 0)
			for i := range r.int("num_hidden_layers") {
				p := fmt.Sprintf("layers.%d.", i)
				h := each(x, func(v vector) vector { return rms(v, r.vec(p+"input_layernorm.weight"), eps) })
				if isMamba(i) {
					h = r.mamba2(p+"mamba.", mamba2{heads: 6, wide: 8, groups: 1, states: 7, normGroups: 1, eps: eps, in: 1, out: 1, by: ones, limit: [2]float64{0, 1e9}}, h)
				} else {
					h = r.attention(p+"self_attn.", attentionNumbers{heads: 4, kvHeads: 2, wide: 6, scale: r.number("attention_multiplier", 0), in: 1, out: 1, key: 1}, h)
				}
				x = addRows(x, h, by)
				x = addRows(x, each(x, func(v vector) vector {
					v = rms(v, r.vec(p+"post_attention_layernorm.weight"), eps)
					sum := r.halves(p+"shared_mlp.input_linear", p+"shared_mlp.output_linear", v)
					logits := r.linear(p+"block_sparse_moe.router.layer", v)
					var best vector
					chosen := largestOf(logits, 2)
					for _, e := range chosen {
						best = append(best, logits[e])
					}
					for k, weight := range softmax(best) {
						sum = plus(sum, times(r.halves(p+"block_sparse_moe.input_linear", p+"block_sparse_moe.output_linear", v, chosen[k]), weight))
					}
					return sum
				}), by)
			}
			return x
		},
		out: lastNorm("norm.weight"),
	},
	"nemotron_h": {
		config: `{"model_type": "nemotron_h", "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 5, "hybrid_override_pattern": "M-*EM", "num_attention_heads": 4,
			"num_key_value_heads": 2, "head_dim": 6, "vocab_size": 41, "layer_norm_epsilon": 1e-5, "mamba_num_heads": 6, "mamba_head_dim": 8, "n_groups": 2, "ssm_state_size": 7, "conv_kernel": 4,
			"mlp_hidden_act": "relu2", "n_routed_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 9, "moe_shared_expert_intermediate_size": 11, "moe_latent_size": 16,
			"n_group": 1, "topk_group": 1, "norm_topk_prob": true, "routed_scaling_factor": 2.5, "time_step_limit": [0.01, 2.0], "sliding_window": null, "tie_word_embeddings": false}`,
		put: func(m maker) {
			m.ends("backbone.embeddings", "backbone.norm_f", 41)
			for i, letter := range "M-*EM" {
				p := fmt.Sprintf("backbone.layers.%d.", i)
				m.norm(p+"norm", m.n)
				p += "mixer."
				switch letter {
				case 'M':
					m.mamba2(p, 6, 8, 2, 7, 4, true)
				case '*':
					m.attention(p, 4, 2, 6)
				case '-':
					m.linear(p+"up_proj", 20, m.n)
					m.linear(p+"down_proj", m.n, 20)
				case 'E':
					m.linear(p+"gate", 6, m.n)
					m.Put(m.r, p+"gate.e_score_correction_bias", 0.2, 0, 6)
					m.linear(p+"fc1_latent_proj", 16, m.n)
					m.linear(p+"fc2_latent_proj", m.n, 16)
					m.linear(p+"shared_experts.up_proj", 11, m.n)
					m.linear(p+"shared_experts.down_proj", m.n, 11)
					for e := range 6 {
						m.linear(fmt.Sprintf("%sexperts.%d.up_proj", p, e), 9, 16)
						m.linear(fmt.Sprintf("%sexperts.%d.down_proj", p, e), 16, 9)
					}
				}
			}
		},
		run: func(r *reference, x []vector) []vector {
			const eps = 1e-5
			for i, letter := range "M-*EM" {
				p := fmt.Sprintf("layers.%d.", i)
				h := each(x, func(v vector) vector { return rms(v, r.vec(p+"norm.weight"), eps) })
				p += "mixer."
				switch letter {
				case 'M':
					h = r.mamba2(p, mamba2{heads: 6, wide: 8, groups: 2, states: 7, normGroups: 2, eps: eps, in: 1, out: 1, by: ones, limit: [2]float64{0.01, 2}}, h)
				case '*':
					h = r.attention(p, attentionNumbers{heads: 4, kvHeads: 2, wide: 6, scale: 1 / math.Sqrt(6), in: 1, out: 1, key: 1}, h)
				case '-':
					h = each(h, func(v vector) vector { return r.squared(p, v) })
				case 'E':
					h = each(h, func(v vector) vector {
						scores := r.linear(p+"gate", v)
						for e := range scores {
							scores[e] = sigmoid(scores[e])
						}
						chosen := largestOf(plus(scores, r.vec(p+"gate.e_score_correction_bias")), 3)
						total := 0.0
						for _, e := range chosen {
							total += scores[e]
						}
						latent, sum := r.linear(p+"fc1_latent_proj", v), make(vector, 16)
						for _, e := range chosen {
							sum = plus(sum, times(r.squared(fmt.Sprintf("%sexperts.%d.", p, e), latent), scores[e]/total*2.5))
						}
						return plus(r.linear(p+"fc2_latent_proj", sum), r.squared(p+"shared_experts.", v))
					})
				}
				x = addRows(x, h, 1)
			}
			return x
		},
		out: lastNorm("norm_f.weight"),
	},
	"falcon_h1": {
		config: `{"model_type": "falcon_h1", "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 10, "vocab_size": 41,
			"rms_norm_eps": 1e-5, "mamba_d_ssm": 40, "mamba_n_heads": 5, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 7, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_rms_norm": false,
			"mamba_norm_before_gate": false, "attention_in_multiplier": 0.9, "attention_out_multiplier": 0.8, "key_multiplier": 0.7, "ssm_in_multiplier": 1.25, "ssm_out_multiplier": 0.6,
			"ssm_multipliers": [0.9, 0.8, 1.1, 1.2, 0.7], "mlp_multipliers": [0.75, 0.5], "embedding_multiplier": 2.5, "lm_head_multiplier": 0.3, "rope_theta": 100000000000.0,
			"rope_scaling": null, "tie_word_embeddings": false}`,
		put: func(m maker) {
			m.ends("model.embed_tokens", "model.final_layernorm", 41)
			for i := range 2 {
				p := fmt.Sprintf("model.layers.%d.", i)
				m.norm(p+"input_layernorm", m.n)
				m.norm(p+"pre_ff_layernorm", m.n)
				m.mlp(p+"feed_forward.", 20)
				m.mamba2(p+"mamba.", 5, 8, 1, 7, 4, false)
				m.attention(p+"self_attn.", 4, 2, 10)
			}
		},
		run: func(r *reference, x []vector) []vector {
			eps := r.number("rms_norm_eps", 0)
			for i := range r.int("num_hidden_layers") {
				p := fmt.Sprintf("layers.%d.", i)
				h := each(x, func(v vector) vector { return rms(v, r.vec(p+"input_layernorm.weight"), eps) })
				a := r.attention(p+"self_attn.", attentionNumbers{4, 2, 10, 10, 1 / math.Sqrt(10), 1e11, 0.9, 0.8, 0.7}, h)
				h = r.mamba2(p+"mamba.", mamba2{heads: 5, wide: 8, groups: 1, states: 7, noNorm: true, in: 1.25, out: 0.6, by: [5]float64{0.9, 0.8, 1.1, 1.2, 0.7}, limit: [2]float64{0, 1e9}}, h)
				x = addRows(addRows(x, h, 1), a, 1)
				x = addRows(x, each(x, func(v vector) vector {
					return r.gated(p+"feed_forward.", rms(v, r.vec(p+"pre_ff_layernorm.weight"), eps), 0.75, 0.5)
				}), 1)
			}
			return x
		},
		out: lastNorm("final_layernorm.weight"),
	},
	"jamba": {
		config: `{"model_type": "jamba", "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 41,
			"rms_norm_eps": 1e-6, "attn_layer_period": 3, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1, "num_experts": 4, "num_experts_per_tok": 2,
			"mamba_d_state": 7, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_dt_rank": 5, "sliding_window": null, "tie_word_embeddings": false}`,
		put: func(m maker) {
			m.ends("model.embed_tokens", "model.final_layernorm", 41)
			for i := range 3 {
				p := fmt.Sprintf("model.layers.%d.", i)
				m.norm(p+"input_layernorm", m.n)
				m.norm(p+"pre_ff_layernorm", m.n)
				if i == 1 {
					m.attention(p+"self_attn.", 4, 2, 6)
					m.linear(p+"feed_forward.router", 4, m.n)
					for e := range 4 {
						m.mlp(fmt.Sprintf("%sfeed_forward.experts.%d.", p, e), 20)
					}
					continue
				}
				m.mlp(p+"feed_forward.", 20)
				p += "mamba."
				m.linear(p+"in_proj", 96, m.n)
				m.Put(m.r, p+"conv1d.weight", 0.5, 0, 48, 1, 4)
				m.bias(p+"conv1d", 48)
				m.linear(p+"x_proj", 19, 48)
				m.linear(p+"dt_proj", 48, 5)
				m.Put(m.r, p+"dt_proj.bias", 1, -1, 48)
				m.Put(m.r, p+"A_log", 1, 0, 48, 7)
				m.Put(m.r, p+"D", 1, 0, 48)
				m.norm(p+"dt_layernorm", 5)
				m.norm(p+"b_layernorm", 7)
				m.norm(p+"c_layernorm", 7)
				m.linear(p+"out_proj", m.n, 48)
			}
		},
		run: func(r *reference, x []vector) []vector {
			eps := r.number("rms_norm_eps", 0)
			for i := range r.int("num_hidden_layers") {
				p := fmt.Sprintf("layers.%d.", i)
				h := each(x, func(v vector) vector { return rms(v, r.vec(p+"input_layernorm.weight"), eps) })
				if i == 1 {
					h = r.attention(p+"self_attn.", attentionNumbers{heads: 4, kvHeads: 2, wide: 6, scale: 1 / math.Sqrt(6), in: 1, out: 1, key: 1}, h)
				} else {
					h = r.mamba1(p+"mamba.", 7, 5, eps, h)
				}
				x = addRows(x, h, 1)
				x = addRows(x, each(x, func(v vector) vector {
					v = rms(v, r.vec(p+"pre_ff_layernorm.weight"), eps)
					if i != 1 {
						return r.gated(p+"feed_forward.", v, 1, 1)
					}
					weights, sum := softmax(r.linear(p+"feed_forward.router", v)), make(vector, len(v))
					for _, e := range largestOf(weights, 2) {
						sum = plus(sum, times(r.gated(fmt.Sprintf("%sfeed_forward.experts.%d.", p, e), v, 1, 1), weights[e]))
					}
					return sum
				}), 1)
			}
			return x
		},
		out: lastNorm("final_layernorm.weight"),
	},
}

// hybrids are all of them.
var hybrids = func() map[string]hybridModel {
	all := maps.Clone(mambaHybrids)
	maps.Copy(all, deltaHybrids)
	return all
}()

// tensors makes the weights of a hybrid.
func (h hybridModel) tensors(seed uint64) weightstest.State {
	m := maker{weightstest.State{}, rand.New(rand.NewPCG(seed, 7)), 24}
	h.put(m)
	return m.State
}

// hybridFolder writes a hybrid as the hub has it.
func hybridFolder(t testing.TB, h hybridModel, w weightstest.State) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(h.config), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "model.safetensors"), w.File(), 0o600))
	return dir
}

// hybridNames are those of all hybrids.
func hybridNames() (list []string) {
	for name := range hybrids {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}
