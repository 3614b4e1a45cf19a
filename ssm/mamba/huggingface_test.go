package mamba

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/subquad/subquad/internal/weights"
	"github.com/subquad/subquad/internal/weights/weightstest"
)

// published lays a checkpoint out as Hugging Face's "-hf" ones: names of
// transformers, embedding and head shared where they are equal, a config.json with
// the keys of their MambaConfig, Mamba2Config or FalconMambaConfig, and two files
// with an index. It returns the folder.
func published(t testing.TB, s state, config map[string]any) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, b []byte) { must(t, os.WriteFile(filepath.Join(dir, name), b, 0o600)) }
	text, err := json.Marshal(config)
	must(t, err)
	write("config.json", []byte(strings.ReplaceAll(string(text), `"Infinity"`, "Infinity")))
	renamed := s.Renamed(func(n string) string { return strings.Replace(n, "embedding.", "embeddings.", 1) })
	files := map[string]weightstest.State{"model-00001-of-00002.safetensors": {}, "model-00002-of-00002.safetensors": {}}
	index := map[string]string{}
	for n, tensor := range renamed {
		file := "model-00001-of-00002.safetensors"
		if strings.Contains(n, "layers.0.") {
			file = "model-00002-of-00002.safetensors"
		}
		files[file][n], index[n] = tensor, file
	}
	for name, f := range files {
		write(name, f.File())
	}
	text, err = json.Marshal(map[string]any{"metadata": map[string]any{"total_size": 1}, "weight_map": index})
	must(t, err)
	write("model.safetensors.index.json", text)
	return dir
}

// huggingFace returns m as it reads it from its checkpoint in that layout.
func huggingFace(t testing.TB, c *weights.File, m *Model) *Model {
	t.Helper()
	s := state{weightstest.State{}}
	mamba2 := false
	for _, n := range c.Names() {
		data, err := c.Tensor(n).Float32()
		must(t, err)
		s.State[n] = weightstest.Tensor{Shape: c.Tensor(n).Shape, Data: data}
		mamba2 = mamba2 || strings.HasSuffix(n, ".dt_bias")
	}
	mixer := func(name string) []int { return s.State["backbone.layers.0.mixer."+name].Shape }
	config := map[string]any{
		"architectures": []string{"MambaForCausalLM"}, "model_type": "mamba", "hidden_size": m.cfg.Dim, "num_hidden_layers": m.cfg.Layers,
		"vocab_size": m.cfg.Vocab, "layer_norm_epsilon": m.cfg.Eps, "conv_kernel": taps, "expand": 2, "hidden_act": "silu", "residual_in_fp32": true,
		"rescale_prenorm_residual": false, "time_step_floor": 0.0001, "time_step_max": 0.1, "time_step_min": 0.001, "use_bias": false,
		"use_cache": true, "use_conv_bias": true, "torch_dtype": "float32", "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
	}
	if mamba2 {
		limit := []any{m.cfg.DtMin, m.cfg.DtMax}
		if m.cfg.DtMax == 0 {
			limit[1] = "Infinity"
		}
		heads := mixer("A_log")[0]
		for k, v := range map[string]any{
			"architectures": []string{"Mamba2ForCausalLM"}, "model_type": "mamba2", "state_size": m.cfg.States, "num_heads": heads, "head_dim": cmp.Or(m.cfg.HeadDim, 64),
			"n_groups": cmp.Or(m.cfg.Groups, 1), "chunk_size": 256, "norm_before_gate": true, "rms_norm": true, "time_step_limit": limit, "tie_word_embeddings": false,
		} {
			config[k] = v
		}
	} else {
		config["state_size"], config["intermediate_size"], config["time_step_rank"] = mixer("A_log")[1], mixer("A_log")[0], mixer("dt_proj.weight")[1]
	}
	if c.Tensor("lm_head.weight") == nil {
		config["tie_word_embeddings"] = true
	}
	theirs, err := Open(published(t, s, config), Config{})
	must(t, err)
	return theirs
}

// falcon64 is FalconMambaForCausalLM in float64: Mamba-1 with norms of dt, B and C
// that have no weights, and a head of its own.
func falcon64(s state, layers int, eps, mixerEps float64, ids []int32) (logits []float32) {
	at := func(name string) func(i int) float64 {
		d := s.State["backbone."+name].Data
		return func(i int) float64 { return float64(d[i]) }
	}
	rms := func(x []float64, eps float64, weight func(int) float64) []float64 {
		var sum float64
		for _, v := range x {
			sum += v * v
		}
		out := make([]float64, len(x))
		for i, v := range x {
			out[i] = v / math.Sqrt(sum/float64(len(x))+eps)
			if weight != nil {
				out[i] *= weight(i)
			}
		}
		return out
	}
	linear := func(weight func(int) float64, x []float64, out int) []float64 {
		y := make([]float64, out)
		for o := range y {
			for i, v := range x {
				y[o] += weight(o*len(x)+i) * v
			}
		}
		return y
	}
	silu := func(x float64) float64 { return x / (1 + math.Exp(-x)) }
	const inner, rank = heads * headDim, 2
	windows, h := make([][][]float64, layers), make([][]float64, layers)
	for i := range h {
		h[i] = make([]float64, inner*states)
	}
	embedding, head := at(wordEmbedding), s.State["lm_head.weight"].Data
	for _, id := range ids {
		r := make([]float64, dim)
		for i := range r {
			r[i] = embedding(int(id)*dim + i)
		}
		for l := range layers {
			p := fmt.Sprintf("layers.%d.", l)
			m := func(name string) func(int) float64 { return at(p + "mixer." + name) }
			xz := linear(m("in_proj.weight"), rms(r, eps, at(p+"norm.weight")), 2*inner)
			windows[l] = append(windows[l], xz[:inner])
			x, taken := make([]float64, inner), windows[l]
			for c := range x {
				x[c] = m("conv1d.bias")(c)
				for k := range taps {
					if t := len(taken) - taps + k; t >= 0 {
						x[c] += m("conv1d.weight")(c*taps+k) * taken[t][c]
					}
				}
				x[c] = silu(x[c])
			}
			small := linear(m("x_proj.weight"), x, rank+2*states)
			dt := linear(m("dt_proj.weight"), rms(small[:rank], mixerEps, nil), inner)
			b, c := rms(small[rank:rank+states], mixerEps, nil), rms(small[rank+states:], mixerEps, nil)
			y := make([]float64, inner)
			for i := range y {
				step := math.Log1p(math.Exp(dt[i] + m("dt_proj.bias")(i)))
				for n := range states {
					v := &h[l][i*states+n]
					*v = math.Exp(-step*math.Exp(m("A_log")(i*states+n)))**v + step*b[n]*x[i]
					y[i] += *v * c[n]
				}
				y[i] = (y[i] + m("D")(i)*x[i]) * silu(xz[inner+i])
			}
			for i, v := range linear(m("out_proj.weight"), y, dim) {
				r[i] += v
			}
		}
		for _, v := range linear(func(i int) float64 { return float64(head[i]) }, rms(r, eps, at("norm_f.weight")), vocab) {
			logits = append(logits, float32(v))
		}
	}
	return logits
}

// TestFalconMamba reads a checkpoint in the layout of falcon-mamba-7b and compares
// it with float64, whole and token by token.
func TestFalconMamba(t *testing.T) {
	s := random(false, 1, 1)
	head := tokensAsFloats(vocab * dim)
	for i := range head {
		head[i] = head[i]/vocab - 0.5
	}
	s.State["lm_head.weight"] = weightstest.Tensor{Shape: []int{vocab, dim}, Data: head}
	m, err := Open(published(t, s, map[string]any{
		"architectures": []string{"FalconMambaForCausalLM"}, "model_type": "falcon_mamba", "hidden_size": dim, "intermediate_size": heads * headDim,
		"num_hidden_layers": 2, "state_size": states, "conv_kernel": taps, "time_step_rank": 2, "vocab_size": vocab, "layer_norm_epsilon": 1e-5,
		"mixer_rms_eps": 0.01, "tie_word_embeddings": false, "use_bias": false, "use_conv_bias": true, "expand": 16,
	}), Config{})
	must(t, err)
	ids := tokens(5, 80)
	want, got := falcon64(s, 2, 1e-5, 0.01, ids), zeros(80, vocab)
	must(t, m.Forward(got, ids))
	near(t, "whole", got.Data, want, 2e-5)
	st := newState(t, m, 0)
	for i := range ids {
		must(t, m.Step(zeros(1, vocab), ids[i:i+1], st))
	}
	last := zeros(1, vocab)
	must(t, m.Step(last, ids[:1], st))
	want = falcon64(s, 2, 1e-5, 0.01, append(ids, ids[0]))
	near(t, "token by token", last.Data, want[80*vocab:], 2e-5)
}
