package transformer

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
)

// hybridLogits are those of a reference.
func hybridLogits(t testing.TB, h hybridModel, ids []int32) (logits []float32, residuals []vector) {
	r := newReference(t, strings.ReplaceAll(h.config, "Infinity", "1e38"), h.tensors(1))
	norm, eps, embedding, scale := h.out(r)
	words := r.w["embed_tokens.weight"]
	if words.Data == nil {
		words = r.w["embeddings.weight"]
	}
	var x []vector
	for _, id := range ids {
		var row vector
		for _, v := range words.Data[int(id)*24:][:24] {
			row = append(row, float64(v)*embedding)
		}
		x = append(x, row)
	}
	x = h.run(r, x)
	for _, v := range x {
		for _, l := range r.linear("lm_head", rms(v, r.vec(norm), eps)) {
			logits = append(logits, float32(l*scale))
		}
	}
	return logits, x
}

// TestHybrids compares hybrids with loops in float64: whole, in random splits, in a batch,
// and from a stored state.
func TestHybrids(t *testing.T) {
	const tol = 2e-5
	for _, name := range hybridNames() {
		h := hybrids[name]
		dir := hybridFolder(t, h, h.tensors(1))
		const n = 83
		r := rand.New(rand.NewPCG(3, 4))
		ids := make([]int32, n)
		for i := range ids {
			ids[i] = int32(r.IntN(41))
		}
		want, last := hybridLogits(t, h, ids)
		short, _ := hybridLogits(t, h, ids[:5])
		t.Run(name, func(t *testing.T) {
			isatest.Run(t, func(t *testing.T) {
				m, err := Open(dir, Config{})
				must(t, err)
				v := m.shape.Vocab
				got := zeros(n, v)
				call := &Call{Tokens: ids, Logits: got, Residuals: zerosList(m.shape.Layers+1, n, m.shape.Dim)}
				must(t, m.Run(t.Context(), call))
				near(t, "logits", got.Data, want, tol)
				var residual []float32
				for _, row := range last {
					for _, x := range row {
						residual = append(residual, float32(x))
					}
				}
				near(t, "residual", call.Residuals[m.shape.Layers].Data, residual, tol)
				st := newState(t, m, StateConfig{})
				for from := 0; from < n; {
					to := from + 1 + r.IntN(min(n-from, 20))
					must(t, m.Step(mat.Rows(got, from, to), ids[from:to], st))
					from = to
					if from > 30 && from < 60 { // goes on from a file
						var file bytes.Buffer
						_, err := st.WriteTo(&file)
						must(t, err)
						st, err = m.ReadState(&file)
						must(t, err)
					}
				}
				near(t, "splits", got.Data, want, tol)
				both := zeros(n+5, v)
				must(t, m.Run(t.Context(), &Call{Tokens: append(append([]int32(nil), ids[:5]...), ids...), Offsets: []int{0, 5, n + 5}, Logits: both}))
				near(t, "batch, short", both.Data[:5*v], short, tol)
				near(t, "batch, long", both.Data[5*v:], want, tol)
			})
		})
	}
}

// TestHybridRollback: a state with recurrent layers goes back to its snapshots, and to
// nothing else; what it gives from there is what a fresh one gives.
func TestHybridRollback(t *testing.T) {
	for _, name := range append(hybridNames(), qwen35Names...) {
		m := open(t, name, Config{})
		ids, v := tokens(m, 60), m.shape.Vocab
		st := newState(t, m, StateConfig{Snapshots: 2})
		var fork *State
		for at := 0; at < 50; at += 10 {
			must(t, m.Step(zeros(10, v), ids[at:at+10], st))
			if at == 20 {
				fork = st.Clone()
			}
		}
		for _, n := range []int{45, 20, 10} {
			if err := st.Truncate(n); !errors.Is(err, ErrState) || st.Len() != 50 {
				t.Errorf("%s: error %v of a way back to %d tokens, %d left", name, err, n, st.Len())
			}
		}
		must(t, st.Truncate(40))
		got, want := zeros(10, v), zeros(10, v)
		must(t, m.Step(got, ids[40:50], st))
		must(t, m.Step(zeros(10, v), ids[30:40], fork))
		must(t, m.Step(want, ids[40:50], fork))
		same(t, name+", gone back", got.Data, want.Data)
		if name == "jamba" {
			if err := newState(t, m, StateConfig{}).Truncate(0); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestElsewhere: model types that other packages read, or none does, are told with why.
func TestElsewhere(t *testing.T) {
	for kind, want := range map[string]string{"zamba2": "embeddings again", "rwkv7": "package rwkv", "mamba2": "package mamba", "falcon_mamba": "package mamba"} {
		_, err := ParseConfig([]byte(`{"model_type": "` + kind + `"}`))
		if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "want one of") {
			t.Errorf("%s: error %v, want %s", kind, err, want)
		}
	}
}

// TestHybridErrors: what a file says wrongly of a hybrid is told by its key.
func TestHybridErrors(t *testing.T) {
	for _, c := range []struct{ model, from, to, want string }{
		{"bamba", `"mamba_n_heads": 6`, `"mamba_n_heads": 5`, "mamba_n_heads is 5, want a divisor of the 48 channels"},
		{"bamba", `"mamba_n_groups": 2`, `"mamba_n_groups": 4`, "mamba_n_groups is 4, want a divisor of mamba_n_heads = 6"},
		{"bamba", `"mamba_d_state": 7`, `"mamba_d_state": 0`, "is 0, want 1 to"},
		{"granitemoehybrid", `"layer_types": ["mamba", `, `"layer_types": [`, "want 3"},
		{"granitemoehybrid", `"layer_types": ["mamba"`, `"layer_types": ["conv"`, `is "conv", which is not read`},
		{"granitemoehybrid", `[0.0, Infinity]`, `[3, 1]`, "time_step_limit is"},
		{"nemotron_h", `M-*EM`, `M-*E`, "hybrid_override_pattern is of 4 layers, want num_hidden_layers = 5"},
		{"nemotron_h", `M-*EM`, `M-*EX`, "hybrid_override_pattern has 'X' for layer 4"},
		{"nemotron_h", `"relu2"`, `"gelu"`, "mlp_hidden_act is"},
		{"falcon_h1", `"mamba_d_head": 8`, `"mamba_d_head": 9`, "want 40 channels together"},
		{"falcon_h1", `"mlp_multipliers": [0.75, 0.5]`, `"mlp_multipliers": [0.75]`, "mlp_multipliers is"},
		{"falcon_h1", `"mamba_d_ssm": 40,`, ``, "no mamba_d_ssm"},
		{"kimi_linear", `"full_attn_layers": [2], `, ``, "has no full_attn_layers"},
		{"kimi_linear", `"short_conv_kernel_size": 4`, `"short_conv_kernel_size": 4, "gate_lower_bound": -5`, "gate_lower_bound is set"},
		{"kimi_linear", `"sigmoid"`, `"softmax"`, "moe_router_activation_func is"},
		{"olmo_hybrid", `"linear_num_value_heads": 4`, `"linear_num_value_heads": 3`, "and a multiple"},
		{"olmo_hybrid", `"linear_attention", "full`, `"sliding_attention", "full`, "which is not read"},
		{"jamba", `"attn_layer_offset": 1`, `"attn_layer_offset": 3`, "attn_layer_offset is 3, want less than attn_layer_period = 3"},
	} {
		text := hybrids[c.model].config
		if !strings.Contains(text, c.from) {
			t.Fatalf("%s has no %s", c.model, c.from)
		}
		if _, err := ParseConfig([]byte(strings.Replace(text, c.from, c.to, 1))); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %s", c.model, err, c.want)
		}
	}
	// A tensor that is missing or not known is told by its name.
	h := hybrids["nemotron_h"]
	w := h.tensors(1)
	delete(w, "backbone.layers.0.mixer.A_log")
	if _, err := Open(hybridFolder(t, h, w), Config{}); !errors.Is(err, ErrCheckpoint) || !strings.Contains(err.Error(), "no tensor backbone.layers.0.mixer.A_log") {
		t.Errorf("error %v of a missing tensor", err)
	}
	w = h.tensors(1)
	w["backbone.layers.2.mixer.q_proj.bias"] = w["backbone.layers.0.mixer.A_log"]
	if _, err := Open(hybridFolder(t, h, w), Config{}); !errors.Is(err, ErrCheckpoint) || !strings.Contains(err.Error(), "q_proj.bias") {
		t.Errorf("error %v of a tensor that is not read", err)
	}
}
