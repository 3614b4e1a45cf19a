package transformer

import (
	"fmt"
	"math"
)

// unit returns x / sqrt(sum x^2 + 1e-6).
func unit(x vector) vector {
	sum := 1e-6
	for _, v := range x {
		sum += v * v
	}
	return times(x, 1/math.Sqrt(sum))
}

// deltaRule takes a token through the states [heads][K][V] of the delta rule, with the decay
// of each key channel.
func deltaRule(states [][]vector, q, k, v, decay vector, beta vector) (out vector) {
	heads := len(states)
	wide, deep := len(states[0]), len(states[0][0])
	each := heads / (len(k) / wide)
	for h, s := range states {
		key, query := unit(k[h/each*wide:][:wide]), unit(q[h/each*wide:][:wide])
		read := make(vector, deep)
		for i, row := range s {
			for j := range row {
				row[j] *= math.Exp(decay[h*wide+i])
				read[j] += row[j] * key[i]
			}
		}
		o := make(vector, deep)
		for i, row := range s {
			for j := range row {
				row[j] += key[i] * beta[h] * (v[h*deep+j] - read[j])
				o[j] += row[j] * query[i] / math.Sqrt(float64(wide))
			}
		}
		out = append(out, o...)
	}
	return out
}

func emptyStates(heads, wide, deep int) (s [][]vector) {
	for range heads {
		var m []vector
		for range wide {
			m = append(m, make(vector, deep))
		}
		s = append(s, m)
	}
	return s
}

// gatedDelta is OLMo's Gated DeltaNet.
func (r *reference) gatedDelta(p string, heads, keyHeads, wide, deep int, x []vector) (y []vector) {
	keys := keyHeads * wide
	qkv := r.convolve(p+"conv1d", each(x, func(v vector) vector {
		return append(append(r.linear(p+"q_proj", v), r.linear(p+"k_proj", v)...), r.linear(p+"v_proj", v)...)
	}))
	states, rate, bias := emptyStates(heads, wide, deep), r.vec(p+"A_log"), r.vec(p+"dt_bias")
	for t, v := range x {
		a, beta, decay := r.linear(p+"a_proj", v), r.linear(p+"b_proj", v), vector{}
		for h := range heads {
			beta[h] = 2 * sigmoid(beta[h])
			for range wide {
				decay = append(decay, -math.Exp(rate[h])*softplus(a[h]+bias[h]))
			}
		}
		o := deltaRule(states, qkv[t][:keys], qkv[t][keys:2*keys], qkv[t][2*keys:], decay, beta)
		gate := r.linear(p+"g_proj", v)
		for h := range heads {
			copy(o[h*deep:], rms(o[h*deep:(h+1)*deep], r.vec(p+"o_norm.weight"), 1e-5))
		}
		for i := range o {
			o[i] *= silu(gate[i])
		}
		y = append(y, r.linear(p+"o_proj", o))
	}
	return y
}

// kda is Kimi Delta Attention.
func (r *reference) kda(p string, heads, wide int, eps float64, x []vector) (y []vector) {
	conv := func(name string) []vector {
		return r.convolve(p+name+"_conv1d", each(x, func(v vector) vector { return r.linear(p+name+"_proj", v) }))
	}
	q, k, v := conv("q"), conv("k"), conv("v")
	states, rate, bias := emptyStates(heads, wide, wide), r.vec(p+"A_log"), r.vec(p+"dt_bias")
	for t, in := range x {
		decay, beta := r.linear(p+"f_b_proj", r.linear(p+"f_a_proj", in)), r.linear(p+"b_proj", in)
		for i := range decay {
			decay[i] = -math.Exp(rate[i/wide]) * softplus(decay[i]+bias[i])
		}
		for h := range beta {
			beta[h] = sigmoid(beta[h])
		}
		o := deltaRule(states, q[t], k[t], v[t], decay, beta)
		gate := r.linear(p+"g_b_proj", r.linear(p+"g_a_proj", in))
		for h := range heads {
			copy(o[h*wide:], rms(o[h*wide:(h+1)*wide], r.vec(p+"o_norm.weight"), eps))
		}
		for i := range o {
			o[i] *= sigmoid(gate[i])
		}
		y = append(y, r.linear(p+"o_proj", o))
	}
	return y
}

// latent is latent attention without positions.
func (r *reference) latent(p string, heads, nope, rot, deep, rank int, x []vector) (y []vector) {
	var keys, values []vector
	for _, v := range x {
		q, kv := r.linear(p+"q_proj", v), r.linear(p+"kv_a_proj_with_mqa", v)
		made := r.linear(p+"kv_b_proj", rms(kv[:rank], r.vec(p+"kv_a_layernorm.weight"), 1e-6))
		var key, value vector
		for h := range heads {
			m := made[h*(nope+deep):]
			key = append(append(key, m[:nope]...), kv[rank:]...)
			value = append(value, m[nope:nope+deep]...)
		}
		keys, values = append(keys, key), append(values, value)
		o := make(vector, heads*deep)
		for h := range heads {
			var logits vector
			for s := range keys {
				dot := 0.0
				for i := range nope + rot {
					dot += q[h*(nope+rot)+i] * keys[s][h*(nope+rot)+i]
				}
				logits = append(logits, dot/math.Sqrt(float64(nope+rot)))
			}
			for s, w := range softmax(logits) {
				for i := range deep {
					o[h*deep+i] += w * values[s][h*deep+i]
				}
			}
		}
		y = append(y, r.linear(p+"o_proj", o))
	}
	return y
}

var deltaHybrids = map[string]hybridModel{
	"olmo_hybrid": {
		config: `{"model_type": "olmo_hybrid", "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 41,
			"rms_norm_eps": 1e-6, "layer_types": ["linear_attention", "full_attention", "linear_attention"], "linear_num_key_heads": 2, "linear_num_value_heads": 4,
			"linear_key_head_dim": 6, "linear_value_head_dim": 10, "linear_conv_kernel_dim": 4, "linear_allow_neg_eigval": true,
			"rope_parameters": {"rope_theta": null, "rope_type": "default"}, "tie_word_embeddings": false}`,
		put: func(m maker) {
			m.ends("model.embed_tokens", "model.norm", 41)
			for i := range 3 {
				p := fmt.Sprintf("model.layers.%d.", i)
				m.norm(p+"post_attention_layernorm", m.n)
				m.mlp(p+"mlp.", 20)
				if i == 1 {
					m.norm(p+"post_feedforward_layernorm", m.n)
					m.attention(p+"self_attn.", 4, 2, 6)
					m.norm(p+"self_attn.q_norm", 24)
					m.norm(p+"self_attn.k_norm", 12)
					continue
				}
				m.norm(p+"input_layernorm", m.n)
				p += "linear_attn."
				for i, rows := range []int{12, 12, 40, 40, 4, 4} {
					m.linear(p+"qkvgab"[i:i+1]+"_proj", rows, m.n)
				}
				m.Put(m.r, p+"conv1d.weight", 0.5, 0, 64, 1, 4)
				m.Put(m.r, p+"A_log", 1, 0, 4)
				m.Put(m.r, p+"dt_bias", 1, -1, 4)
				m.norm(p+"o_norm", 10)
				m.linear(p+"o_proj", m.n, 40)
			}
		},
		run: func(r *reference, x []vector) []vector {
			const eps = 1e-6
			for i := range 3 {
				p := fmt.Sprintf("layers.%d.", i)
				norm := func(name string) func(vector) vector {
					return func(v vector) vector { return rms(v, r.vec(p+name+".weight"), eps) }
				}
				mlp := func(v vector) vector { return r.gated(p+"mlp.", v, 1, 1) }
				if i == 1 {
					x = addRows(x, each(r.normedAttention(p+"self_attn.", attentionNumbers{heads: 4, kvHeads: 2, wide: 6, scale: 1 / math.Sqrt(6), in: 1, out: 1, key: 1}, eps, x), norm("post_attention_layernorm")), 1)
					x = addRows(x, each(each(x, mlp), norm("post_feedforward_layernorm")), 1)
					continue
				}
				x = addRows(x, r.gatedDelta(p+"linear_attn.", 4, 2, 6, 10, each(x, norm("input_layernorm"))), 1)
				x = addRows(x, each(each(x, norm("post_attention_layernorm")), mlp), 1)
			}
			return x
		},
		out: lastNorm("norm.weight"),
	},
	"kimi_linear": {
		config: `{"model_type": "kimi_linear", "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 12, "vocab_size": 41,
			"rms_norm_eps": 1e-5, "linear_attn_config": {"full_attn_layers": [2], "kda_layers": [1, 3], "num_heads": 3, "head_dim": 8, "short_conv_kernel_size": 4},
			"mla_use_nope": true, "q_lora_rank": null, "kv_lora_rank": 10, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 7, "num_experts": 6, "num_experts_per_token": 2,
			"moe_intermediate_size": 9, "num_shared_experts": 1, "moe_renormalize": true, "routed_scaling_factor": 2.446, "num_expert_group": 1, "topk_group": 1, "use_grouped_topk": true,
			"moe_router_activation_func": "sigmoid", "first_k_dense_replace": 1, "moe_layer_freq": 1, "rope_theta": 10000.0, "rope_scaling": null, "tie_word_embeddings": false}`,
		put: func(m maker) {
			m.ends("model.embed_tokens", "model.norm", 41)
			for i := range 3 {
				p := fmt.Sprintf("model.layers.%d.", i)
				m.norm(p+"input_layernorm", m.n)
				m.norm(p+"post_attention_layernorm", m.n)
				if i == 0 {
					m.mlp(p+"mlp.", 20)
				} else {
					q := p + "block_sparse_moe."
					m.linear(q+"gate", 6, m.n)
					m.Put(m.r, q+"gate.e_score_correction_bias", 0.2, 0, 6)
					m.mlp(q+"shared_experts.", 9)
					for e := range 6 {
						m.linear(fmt.Sprintf("%sexperts.%d.w1", q, e), 9, m.n)
						m.linear(fmt.Sprintf("%sexperts.%d.w3", q, e), 9, m.n)
						m.linear(fmt.Sprintf("%sexperts.%d.w2", q, e), m.n, 9)
					}
				}
				p += "self_attn."
				if i == 1 {
					m.linear(p+"q_proj", 20, m.n)
					m.linear(p+"kv_a_proj_with_mqa", 14, m.n)
					m.norm(p+"kv_a_layernorm", 10)
					m.linear(p+"kv_b_proj", 26, 10)
					m.linear(p+"o_proj", m.n, 14)
					continue
				}
				for _, name := range []string{"q", "k", "v"} {
					m.linear(p+name+"_proj", 24, m.n)
					m.Put(m.r, p+name+"_conv1d.weight", 0.5, 0, 24, 1, 4)
				}
				for _, name := range []string{"f", "g"} {
					m.linear(p+name+"_a_proj", 8, m.n)
					m.linear(p+name+"_b_proj", 24, 8)
				}
				m.linear(p+"b_proj", 3, m.n)
				m.Put(m.r, p+"A_log", 1, 0, 1, 1, 3, 1)
				m.Put(m.r, p+"dt_bias", 1, -1, 24)
				m.norm(p+"o_norm", 8)
				m.linear(p+"o_proj", m.n, 24)
			}
		},
		run: func(r *reference, x []vector) []vector {
			const eps = 1e-5
			for i := range 3 {
				p := fmt.Sprintf("layers.%d.", i)
				h := each(x, func(v vector) vector { return rms(v, r.vec(p+"input_layernorm.weight"), eps) })
				if i == 1 {
					h = r.latent(p+"self_attn.", 2, 6, 4, 7, 10, h)
				} else {
					h = r.kda(p+"self_attn.", 3, 8, eps, h)
				}
				x = addRows(x, h, 1)
				x = addRows(x, each(x, func(v vector) vector {
					v = rms(v, r.vec(p+"post_attention_layernorm.weight"), eps)
					if i == 0 {
						return r.gated(p+"mlp.", v, 1, 1)
					}
					q := p + "block_sparse_moe."
					scores, total := r.linear(q+"gate", v), 0.0
					for e := range scores {
						scores[e] = sigmoid(scores[e])
					}
					chosen := largestOf(plus(scores, r.vec(q+"gate.e_score_correction_bias")), 2)
					for _, e := range chosen {
						total += scores[e]
					}
					sum := r.gated(q+"shared_experts.", v, 1, 1)
					for _, e := range chosen {
						name := fmt.Sprintf("%sexperts.%d.w", q, e)
						g, u := r.linear(name+"1", v), r.linear(name+"3", v)
						for j := range u {
							u[j] *= silu(g[j])
						}
						sum = plus(sum, times(r.linear(name+"2", u), scores[e]/total*2.446))
					}
					return sum
				}), 1)
			}
			return x
		},
		out: lastNorm("norm.weight"),
	},
}
