package striped

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/cmplx"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/weights/weightstest"
)

// dims is the shape of a random model.
type dims struct {
	dim, layers, heads, kvHeads, inner, vocab, modes, taps int
	attention                                              []int
}

var small = dims{dim: 24, layers: 4, heads: 3, kvHeads: 3, inner: 20, vocab: 16, modes: 4, taps: 3, attention: []int{1, 3}}

// random returns a random checkpoint under the published names.
func (d dims) random(seed uint64) weightstest.State {
	r := rand.New(rand.NewPCG(seed, 1))
	s := weightstest.State{}
	linear := func(name string, bias bool, out, in int) {
		s.Put(r, name+".weight", 1/math.Sqrt(float64(in)), 0, out, in)
		if bias {
			s.Put(r, name+".bias", 0.1, 0, out)
		}
	}
	s.Put(r, "embedding_layer.weight", 0.3, 0, d.vocab, d.dim)
	s.Put(r, "unembed.weight", 0.3, 0, d.vocab, d.dim)
	s.Put(r, "norm.scale", 0.1, 1, d.dim)
	for i := range d.layers {
		p := fmt.Sprintf("blocks.%d.", i)
		s.Put(r, p+"pre_norm.scale", 0.1, 1, d.dim)
		s.Put(r, p+"post_norm.scale", 0.1, 1, d.dim)
		linear(p+"mlp.l1", false, d.inner, d.dim)
		linear(p+"mlp.l2", false, d.inner, d.dim)
		linear(p+"mlp.l3", false, d.dim, d.inner)
		if slices.Contains(d.attention, i) {
			linear(p+"inner_mha_cls.Wqkv", true, d.dim+2*d.dim/d.heads*d.kvHeads, d.dim)
			linear(p+"inner_mha_cls.out_proj", true, d.dim, d.dim)
			s.Put(r, p+"inner_mha_cls.rotary_emb.inv_freq", 1, 0, d.dim/d.heads/2)
			continue
		}
		linear(p+"projections", true, 3*d.dim, d.dim)
		linear(p+"out_filter_dense", true, d.dim, d.dim)
		s.Put(r, p+"filter.D", 1, 0, d.dim)
		s.Put(r, p+"filter.short_filter_weight", 0.5, 0, 3*d.dim, 1, d.taps)
		s.Put(r, p+"filter.short_filter_bias", 0.1, 0, 3*d.dim)
		s.Put(r, p+"filter.residues", 0.3, 0, d.dim, d.modes, 1, 2)
		s.Put(r, p+"filter.poles", 0, 0, d.dim, d.modes, 1, 2)
		poles := s[p+"filter.poles"]
		for j := 0; j < len(poles.Data); j += 2 {
			sin, cos := math.Sincos(r.Float64() * math.Pi)
			radius := 1 - 0.3*r.Float64()
			poles.Data[j], poles.Data[j+1] = float32(radius*cos), float32(radius*sin)
		}
	}
	return s
}

func (d dims) config() Config {
	return Config{Heads: d.heads, KVHeads: d.kvHeads, Attention: d.attention}
}

func read(t testing.TB, s weightstest.State, cfg Config) *Model {
	t.Helper()
	file := s.File()
	m, err := Read(bytes.NewReader(file), int64(len(file)), cfg)
	must(t, err)
	return m
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ids(seed uint64, n, vocab int) []int32 {
	r := rand.New(rand.NewPCG(seed, 2))
	list := make([]int32, n)
	for i := range list {
		list[i] = int32(r.IntN(vocab))
	}
	return list
}

// reference is the published model in float64, written as its code reads.
type reference struct {
	s   weightstest.State
	d   dims
	cfg Config
}

func (r reference) at(name string, i int) float64 { return float64(r.s[name].Data[i]) }

// linear returns x W^T + b.
func (r reference) linear(name string, x [][]float64) [][]float64 {
	w := r.s[name+".weight"]
	out := make([][]float64, len(x))
	for t, row := range x {
		out[t] = make([]float64, w.Shape[0])
		for o := range out[t] {
			if _, ok := r.s[name+".bias"]; ok {
				out[t][o] = r.at(name+".bias", o)
			}
			for j, v := range row {
				out[t][o] += float64(w.Data[o*len(row)+j]) * v
			}
		}
	}
	return out
}

func (r reference) norm(name string, x [][]float64) [][]float64 {
	out := make([][]float64, len(x))
	for t, row := range x {
		sum := 0.0
		for _, v := range row {
			sum += v * v
		}
		eps := r.cfg.Eps
		if eps == 0 {
			eps = 1e-6
		}
		root := math.Sqrt(sum/float64(len(row))) + eps
		if r.cfg.EpsUnderRoot {
			root = math.Sqrt(sum/float64(len(row)) + eps)
		}
		for c, v := range row {
			out[t] = append(out[t], v/root*r.at(name+".scale", c))
		}
	}
	return out
}

// filter is the convolution as a sum over all earlier inputs.
func (r reference) filter(p string, u [][]float64) [][]float64 {
	d, n := r.d.dim, len(u)
	z := make([][]float64, n)
	for t := range z {
		for c := range 3 * d {
			v := r.at(p+"short_filter_bias", c)
			for j := range r.d.taps {
				if s := t - r.d.taps + 1 + j; s >= 0 {
					v += r.at(p+"short_filter_weight", c*r.d.taps+j) * u[s][c]
				}
			}
			z[t] = append(z[t], v)
		}
	}
	part := func(t, which, c int) float64 {
		if r.cfg.WholeColumns {
			return z[t][which*d+c]
		}
		head := d / r.d.heads
		return z[t][c/head*3*head+which*head+c%head]
	}
	h := make([][]float64, n)
	for t := range h {
		for c := range d {
			sum := 0.0
			for j := range r.d.modes {
				at := 2 * (c*r.d.modes + j)
				pole, residue := complex(r.at(p+"poles", at), r.at(p+"poles", at+1)), complex(r.at(p+"residues", at), r.at(p+"residues", at+1))
				sum += real(residue * cmplx.Exp(cmplx.Log(pole)*complex(float64(t), 0)))
			}
			h[t] = append(h[t], sum)
		}
	}
	y := make([][]float64, n)
	for t := range y {
		for c := range d {
			x1v := func(s int) float64 { return part(s, 1, c) * part(s, 2, c) }
			sum := r.at(p+"D", c) * x1v(t)
			for s := range t + 1 {
				sum += h[t-s][c] * x1v(s)
			}
			y[t] = append(y[t], sum*part(t, 0, c))
		}
	}
	return y
}

func (r reference) attention(p string, x [][]float64) [][]float64 {
	head := r.d.dim / r.d.heads
	qkv := r.linear(p+"Wqkv", x)
	rotate := func(v []float64, t int) []float64 {
		out := slices.Clone(v)
		scale := r.cfg.RotaryScale
		if scale == 0 {
			scale = 1
		}
		for i := range head / 2 {
			sin, cos := math.Sincos(float64(t) / scale * math.Pow(10000, -2*float64(i)/float64(head)))
			a, b := v[i], v[i+head/2]
			out[i], out[i+head/2] = a*cos-b*sin, a*sin+b*cos
		}
		return out
	}
	y := make([][]float64, len(x))
	for t := range x {
		for h := range r.d.heads {
			kv := h * r.d.kvHeads / r.d.heads
			q := rotate(qkv[t][h*head:][:head], t)
			weights, total := make([]float64, t+1), 0.0
			for s := range weights {
				k := rotate(qkv[s][r.d.dim+kv*head:][:head], s)
				dot := 0.0
				for i := range q {
					dot += q[i] * k[i]
				}
				weights[s] = math.Exp(dot / math.Sqrt(float64(head)))
				total += weights[s]
			}
			for i := range head {
				sum := 0.0
				for s, w := range weights {
					sum += w / total * qkv[s][r.d.dim+(r.d.kvHeads+kv)*head+i]
				}
				y[t] = append(y[t], sum)
			}
		}
	}
	return r.linear(p+"out_proj", y)
}

func (r reference) logits(tokens []int32) [][]float64 {
	x := make([][]float64, len(tokens))
	for t, id := range tokens {
		for c := range r.d.dim {
			x[t] = append(x[t], r.at("embedding_layer.weight", int(id)*r.d.dim+c))
		}
	}
	add := func(y [][]float64) {
		for t := range x {
			for c := range x[t] {
				x[t][c] += y[t][c]
			}
		}
	}
	for i := range r.d.layers {
		p := fmt.Sprintf("blocks.%d.", i)
		u := r.norm(p+"pre_norm", x)
		if slices.Contains(r.d.attention, i) {
			add(r.attention(p+"inner_mha_cls.", u))
		} else {
			add(r.linear(p+"out_filter_dense", r.filter(p+"filter.", r.linear(p+"projections", u))))
		}
		v := r.norm(p+"post_norm", x)
		a, b := r.linear(p+"mlp.l1", v), r.linear(p+"mlp.l2", v)
		for t := range a {
			for c, z := range a[t] {
				if r.cfg.GELU {
					a[t][c] = z / 2 * math.Erfc(-z/math.Sqrt2) * b[t][c]
				} else {
					a[t][c] = z / (1 + math.Exp(-z)) * b[t][c]
				}
			}
		}
		add(r.linear(p+"mlp.l3", a))
	}
	head := "embedding_layer"
	if r.cfg.Untied {
		head = "unembed"
	}
	if r.cfg.NoFinalNorm {
		return r.linear(head, x)
	}
	return r.linear(head, r.norm("norm", x))
}

// TestModel compares with the float64 reference, in every layout.
func TestModel(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for name, change := range map[string]func(*dims, *Config){
			"SiLU":           func(*dims, *Config) {},
			"Evo":            func(_ *dims, c *Config) { c.GELU = true },
			"whole columns":  func(_ *dims, c *Config) { c.WholeColumns, c.EpsUnderRoot, c.Eps = true, true, 0.01 },
			"large eps":      func(_ *dims, c *Config) { c.Eps = 0.1 },
			"interpolated":   func(_ *dims, c *Config) { c.RotaryScale, c.Untied = 16, true },
			"grouped":        func(d *dims, c *Config) { d.heads, d.kvHeads, d.taps, d.modes = 6, 2, 4, 1; c.Heads, c.KVHeads = 6, 2 },
			"no last norm":   func(_ *dims, c *Config) { c.NoFinalNorm = true },
			"attention only": func(d *dims, c *Config) { d.attention = []int{0, 1, 2, 3}; c.Attention = d.attention },
			"no attention":   func(d *dims, c *Config) { d.attention = nil; c.Attention = []int{} },
		} {
			d, cfg := small, small.config()
			change(&d, &cfg)
			s := d.random(3)
			m, tokens := read(t, s, cfg), ids(1, 70, d.vocab)
			got := mat.New(70, d.vocab)
			must(t, m.Forward(got, tokens))
			for i, want := range (reference{s, d, cfg}).logits(tokens) {
				for c, v := range mat.Row(got, i) {
					if math.Abs(float64(v)-want[c]) > 5e-5*(1+math.Abs(want[c])) {
						t.Fatalf("%s: token %d, logit %d is %v, want %v", name, i, c, v, want[c])
					}
				}
			}
			// Prefixed, as the Hugging Face port has it.
			must(t, read(t, s.Renamed(func(n string) string { return "backbone." + n }), cfg).Forward(got, tokens))
		}
	})
}

// TestStates: any split, a stored state, a fork and a batch give what the whole does.
func TestStates(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		m, r := read(t, small.random(4), small.config()), rand.New(rand.NewPCG(1, 2))
		tokens := ids(1, 200, small.vocab)
		whole := mat.New(200, small.vocab)
		must(t, m.Forward(whole, tokens))
		near := func(name string, got blas32.General, from int) {
			t.Helper()
			for i := range got.Rows {
				for c, v := range mat.Row(got, i) {
					if want := mat.Row(whole, from+i)[c]; math.Abs(float64(v-want)) > 2e-5 {
						t.Fatalf("%s: token %d: %v, want %v", name, from+i, v, want)
					}
				}
			}
		}
		through := func(name string, st *State, from int) {
			t.Helper()
			for at := from; at < 200; {
				n := min(1+r.IntN(40)*r.IntN(2), 200-at)
				dst := mat.New(n, small.vocab)
				must(t, m.Step(dst, tokens[at:at+n], st))
				near(name, dst, at)
				at += n
			}
		}
		st, err := m.NewState(StateConfig{Snapshots: 2, MaxTokens: 300})
		must(t, err)
		through("steps", st, 0)
		st.Reset()
		must(t, m.Step(mat.New(90, small.vocab), tokens[:90], st))
		var file bytes.Buffer
		if _, err := st.WriteTo(&file); err != nil {
			t.Fatal(err)
		}
		stored, err := m.ReadState(&file)
		must(t, err)
		fork := st.Clone()
		must(t, m.Step(mat.New(1, small.vocab), tokens[:1], st))
		must(t, st.Truncate(90))
		batch := []*State{fork.Clone(), fork.Clone()}
		dst := mat.New(2, small.vocab)
		must(t, m.StepBatch(dst, []int32{tokens[90], tokens[90]}, batch))
		near("batch", mat.Rows(dst, 0, 1), 90)
		through("stored", stored, 90)
		through("fork", fork, 90)
		through("taken back", st, 90)
		through("batch", batch[1], 91)
		n := 0
		for _, err := range m.Generate(t.Context(), tokens[:5], newState(t, m), GenerateConfig{MaxTokens: 7}) {
			must(t, err)
			n++
		}
		if n != 7 {
			t.Errorf("%d tokens generated", n)
		}
	})
}

func newState(t testing.TB, m *Model) *State {
	st, err := m.NewState(StateConfig{})
	must(t, err)
	return st
}

// evoConfig is that of evo-1-8k-base.
const evoConfig = `{"model_type": "stripedhyena", "vocab_size": 512, "hidden_size": 4096, "num_filters": 4096, "max_sequence_len": 8192,
	"attn_layer_idxs": [8, 16, 24], "num_layers": 32, "short_filter_length": 3, "num_attention_heads": 32, "short_filter_bias": true,
	"eps": 1e-06, "state_size": 8, "inner_size_multiple_of": 16, "smeared_gqa": false, "proj_groups": 1, "hyena_filter_groups": 1,
	"model_parallel_size": 1, "tie_embeddings": true, "inner_mlp_size": null, "final_norm": true, "use_flash_rmsnorm": false,
	"column_split": true, "prefill_style": "fft", "mlp_activation": "gelu"}`

func TestConfig(t *testing.T) {
	c, err := ParseConfig([]byte(evoConfig))
	must(t, err)
	if c.Dim != 4096 || c.Layers != 32 || c.Heads != 32 || c.Vocab != 512 || !slices.Equal(c.Attention, []int{8, 16, 24}) || !c.GELU || c.WholeColumns || c.Untied || c.Eps != 1e-6 {
		t.Errorf("%+v", c)
	}
	// What config.get of stripedhyena's model.py and layers.py takes; a tie_embeddings that is not there is false.
	for _, silent := range []string{`{}`, `{"rotary_emb_base": null, "proj_groups": null, "use_flash_rmsnorm": null, "column_split_hyena": null, "final_norm": null, "mlp_activation": null,
		"use_interpolated_rotary_pos_emb": null, "rotary_emb_scaling_factor": 16, "smeared_gqa": null, "long_fir_threshold": null, "tie_embeddings": null}`} {
		if c, err := ParseConfig([]byte(silent)); err != nil || !reflect.DeepEqual(c, Config{Untied: true}) {
			t.Errorf("%s: %+v, error %v", silent, c, err)
		}
	}
	for _, bad := range []string{
		`{"hyena_filter_groups": 4}`, `{"smeared_gqa": true}`, `{"long_fir_threshold": 64}`, `{"model_type": "llama"}`, `{"mlp_activation": "relu"}`, `{"num_layers": -1}`,
		`{"eps": 0}`, `{"hidden_size": 8, "num_filters": 4}`, `{"num_attention_heads": 6, "proj_groups": 4}`, `{"attn_layer_idxs": [3, 3]}`, `[]`, `{`,
	} {
		if _, err := ParseConfig([]byte(bad)); !errors.Is(err, ErrConfig) || !strings.HasPrefix(err.Error(), "striped: ") {
			t.Errorf("%s: error %v", bad, err)
		}
	}
}

// TestCheckpoint: what is missing or of another shape is an error that names the tensor.
func TestCheckpoint(t *testing.T) {
	whole := small.random(5)
	for name := range whole {
		if strings.HasSuffix(name, "inv_freq") || name == "unembed.weight" || strings.HasSuffix(name, ".bias") || strings.HasSuffix(name, "_bias") {
			continue
		}
		s := small.random(5)
		delete(s, name)
		file := s.File()
		if _, err := Read(bytes.NewReader(file), int64(len(file)), small.config()); !errors.Is(err, ErrCheckpoint) && !errors.Is(err, ErrConfig) {
			t.Errorf("without %s: error %v", name, err)
		}
	}
	file := whole.File()
	if _, err := Read(bytes.NewReader(file), int64(len(file)), Config{}); !errors.Is(err, ErrConfig) {
		t.Errorf("without Heads: %v", err)
	}
}
