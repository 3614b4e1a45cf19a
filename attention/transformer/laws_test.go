package transformer

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/mat/mattest"
	"github.com/subquad/subquad/internal/weights"
	"github.com/subquad/subquad/internal/weights/weightstest"
	"github.com/subquad/subquad/rope"
)

const goldenFolder = "../../testdata/golden/transformer_"

func open(t testing.TB, name string, cfg Config) *Model {
	t.Helper()
	m, err := Open(folderOf(t, name), cfg)
	must(t, err)
	return m
}

// folderOf returns the checkpoint of a name, made where there is none: of random weights, or
// of those in a file of reference vectors.
func folderOf(t testing.TB, name string) string {
	t.Helper()
	dir := goldenFolder + name
	if h, ok := hybrids[name]; ok {
		return hybridFolder(t, h, h.tensors(1))
	}
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	f, err := weights.Open(dir + ".safetensors")
	must(t, err)
	defer f.Close()
	state := weightstest.State{}
	for _, name := range f.Names() {
		if param, ok := strings.CutPrefix(name, "param."); ok {
			data, err := f.Tensor(name).Float32()
			must(t, err)
			state[param] = weightstest.Tensor{Shape: f.Tensor(name).Shape, Data: data}
		}
	}
	config := `{"model_type": "` + f.Metadata["model_type"] + `", ` + f.Metadata["config"][1:]
	return hybridFolder(t, hybridModel{config: config}, state)
}

func zerosList(list, rows, cols int) (all []blas32.General) {
	for range list {
		all = append(all, zeros(rows, cols))
	}
	return all
}

func newState(t testing.TB, m *Model, cfg StateConfig) *State {
	t.Helper()
	st, err := m.NewState(cfg)
	must(t, err)
	return st
}

func tokens(m *Model, n int) []int32 {
	list := make([]int32, n)
	for i := range list {
		list[i] = int32((i*i*7 + i*3 + 5) % m.shape.Vocab)
	}
	return list
}

// near fails the test unless got and want differ by at most tol of the largest value.
var near = mattest.NearLargest

var same = mattest.SameBits

// laws are models that between them have all that a layer can.
var laws = append([]string{"llama", "gemma3", "gpt_oss_mxfp4", "deepseek_v3", "phi3_longrope", "hunyuan", "cohere2"}, append(hybridNames(), qwen35Names...)...)

var qwen35Names = []string{"qwen3_next_model_moe", "qwen3_next_model_35_dense", "qwen3_next_model_35_moe"}

// TestWorkersAndBatches: no bit depends on the number of workers or on what else is in a
// batch.
func TestWorkersAndBatches(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, name := range laws {
			m := open(t, name, Config{})
			const n = 150
			ids := tokens(m, n)
			want, got := zeros(n, m.shape.Vocab), zeros(n, m.shape.Vocab)
			must(t, m.Run(t.Context(), &Call{Tokens: ids, Logits: want, Workers: 1}))
			must(t, m.Run(t.Context(), &Call{Tokens: ids, Logits: got, Workers: 4}))
			same(t, name+", workers", got.Data, want.Data)
			const cut = 67
			a, b := zeros(cut, m.shape.Vocab), zeros(n-cut, m.shape.Vocab)
			must(t, m.Forward(a, ids[:cut]))
			must(t, m.Forward(b, ids[cut:]))
			must(t, m.Run(t.Context(), &Call{Tokens: ids, Offsets: []int{0, cut, n}, Logits: got}))
			same(t, name+", packed", got.Data, append(append([]float32(nil), a.Data...), b.Data...))
			var states []*State
			steps := zeros(3, m.shape.Vocab)
			for i := range 3 {
				st := newState(t, m, StateConfig{Length: n})
				must(t, m.Step(zeros(10*i+1, m.shape.Vocab), ids[:10*i+1], st))
				states = append(states, st.Clone())
				must(t, m.Step(mat.Rows(steps, i, i+1), ids[50+i:51+i], st))
			}
			together := zeros(3, m.shape.Vocab)
			must(t, m.StepBatch(together, ids[50:53], states))
			same(t, name+", StepBatch", together.Data, steps.Data)
		}
	})
}

// TestStates forks, cuts back, stores and reads states of every kind.
func TestStates(t *testing.T) {
	for _, name := range laws {
		m := open(t, name, Config{})
		for what, cfg := range map[string]StateConfig{
			"plain": {}, "most": {MaxTokens: 90}, "windows": {WindowsOnly: true, Snapshots: 4}, "endless": {Window: 16, Keep: 4, Snapshots: 4},
			"bfloat16": {Format: asm.BFloat16}, "int8": {Format: asm.Int8}, "float16 ring": {Format: asm.Float16, Window: 30, Snapshots: 4},
		} {
			cfg.Length = 90
			if m.shape.recurrent() { // there is no other way back
				cfg.Snapshots = 4
			}
			ids, v := tokens(m, 90), m.shape.Vocab
			st := newState(t, m, cfg)
			must(t, m.Step(zeros(60, v), ids[:60], st))
			if st.Bytes() <= 0 {
				t.Errorf("%s, %s: a state of %d bytes", name, what, st.Bytes())
			}
			fork := st.Clone()
			var file bytes.Buffer
			_, err := st.WriteTo(&file)
			must(t, err)
			want, got := zeros(30, v), zeros(30, v)
			must(t, m.Step(want, ids[60:], st))
			must(t, m.Step(got, ids[60:], fork))
			same(t, name+", "+what+", fork", got.Data, want.Data)
			must(t, st.Truncate(60))
			must(t, m.Step(got, ids[60:], st))
			same(t, name+", "+what+", cut back", got.Data, want.Data)
			read, err := m.ReadState(bytes.NewReader(file.Bytes()))
			must(t, err)
			must(t, m.Step(got, ids[60:], read))
			same(t, name+", "+what+", read", got.Data, want.Data)
			for n := 0; n < file.Len(); n += 1 + file.Len()/50 {
				if _, err := m.ReadState(bytes.NewReader(file.Bytes()[:n])); !errors.Is(err, ErrState) {
					t.Fatalf("%s, %s: %d bytes of a state: %v", name, what, n, err)
				}
			}
			if what == "most" {
				if err := m.Step(zeros(1, v), ids[:1], st); !errors.Is(err, ErrFull) {
					t.Errorf("%s: error %v of a full state", name, err)
				}
			}
		}
	}
}

// TestCancel: a call that is cancelled leaves a state after a whole number of pieces, with
// rings too, and going on from there gives what a whole call does.
func TestCancel(t *testing.T) {
	m := open(t, "gemma3", Config{})
	ids, v := tokens(m, 300), m.shape.Vocab
	for _, cfg := range []StateConfig{{}, {WindowsOnly: true}, {Window: 40, Keep: 2}} {
		want, got := zeros(300, v), zeros(300, v)
		must(t, m.Step(want, ids, newState(t, m, cfg)))
		st := newState(t, m, cfg)
		ctx, cancel := context.WithCancel(t.Context())
		must(t, m.Run(ctx, &Call{Tokens: ids[:100], Logits: mat.Rows(got, 0, 100), State: st}))
		cancel()
		if err := m.Run(ctx, &Call{Tokens: ids[100:], Logits: mat.Rows(got, 100, 300), State: st}); err != context.Canceled || st.Len() != 100 {
			t.Fatalf("error %v, %d tokens", err, st.Len())
		}
		must(t, m.Step(mat.Rows(got, 100, 300), ids[100:], st))
		near(t, "after a cancelled call", got.Data, want.Data, 1e-5)
	}
}

// TestEndless generates far beyond a window, in memory that does not grow.
func TestEndless(t *testing.T) {
	m := open(t, "qwen3", Config{})
	st := newState(t, m, StateConfig{Window: 24, Keep: 4})
	n, bytes := 0, int64(0)
	for _, err := range m.Generate(t.Context(), tokens(m, 5), st, GenerateConfig{MaxTokens: 3000, Stop: []int32{}}) {
		must(t, err)
		if n++; n == 200 {
			bytes = st.Bytes()
		}
	}
	if n != 3000 || st.Bytes() != bytes || st.Len() < 3000 {
		t.Errorf("%d tokens, %d bytes after %d", n, st.Bytes(), bytes)
	}
	// While all fits it is what a state without a window gives.
	ids, v := tokens(m, 20), m.shape.Vocab
	want, got := zeros(20, v), zeros(20, v)
	must(t, m.Forward(want, ids))
	must(t, m.Step(got, ids, newState(t, m, StateConfig{Window: 24, Keep: 4})))
	near(t, "within the window", got.Data, want.Data, 1e-5)
}

// TestStop: a text ends at the checkpoint's tokens, or at those that are asked for.
func TestStop(t *testing.T) {
	m := open(t, "llama", Config{})
	if s := m.Shape(); len(s.EOS) != 3 || s.EOS[2] != 9 {
		t.Fatalf("EOS is %v", s.EOS)
	}
	generate := func(stop []int32) (list []int32) {
		for id, err := range m.Generate(t.Context(), tokens(m, 7), newState(t, m, StateConfig{}), GenerateConfig{MaxTokens: 40, Stop: stop}) {
			must(t, err)
			list = append(list, id)
		}
		return list
	}
	all := generate([]int32{})
	if len(all) != 40 {
		t.Fatalf("%d tokens", len(all))
	}
	if got := generate(all[3:4]); len(got) > 3 {
		t.Errorf("%d tokens before a stop after 3", len(got))
	}
}

// TestFormats: weights in two bytes are near those in four, and take half of their memory;
// Shape.Bytes tells it before.
func TestFormats(t *testing.T) {
	for _, name := range laws {
		m := open(t, name, Config{})
		want, got := zeros(30, m.shape.Vocab), zeros(30, m.shape.Vocab)
		ids := tokens(m, 30)
		must(t, m.Forward(want, ids))
		for format, tol := range map[asm.Format]float64{asm.Float16: 5e-3, asm.BFloat16: 5e-2, asm.Int8: 1e-1} {
			small := open(t, name, Config{Format: format})
			if m.shape.Experts == nil { // experts are chosen otherwise
				must(t, small.Forward(got, ids))
				near(t, name+" "+format.String(), got.Data, want.Data, tol)
			}
			if 3*small.Bytes() > 2*m.Bytes() {
				t.Errorf("%s: %d bytes as %v, %d as Float32", name, small.Bytes(), format, m.Bytes())
			}
		}
		shape := m.Shape()
		if told, is := float64(shape.Bytes(asm.Float32)), float64(m.Bytes()); told > 1.02*is || is > 2*told { // narrow layers are filled up
			t.Errorf("%s: Shape tells of %v bytes, there are %v", name, told, is)
		}
	}
	if _, err := Open(goldenFolder+"llama", Config{MaxBytes: 1000}); !errors.Is(err, ErrConfig) {
		t.Errorf("error %v of too large a model", err)
	}
}

// TestMmapAndRope opens a mapped file, and one with another rotation.
func TestMmapAndRope(t *testing.T) {
	m := open(t, "llama", Config{})
	mapped, err := Open(goldenFolder+"llama", Config{}, subquad.WithMmap())
	must(t, err)
	ids := tokens(m, 40)
	want, got := zeros(40, m.shape.Vocab), zeros(40, m.shape.Vocab)
	must(t, m.Forward(want, ids))
	must(t, mapped.Forward(got, ids))
	same(t, "mapped", got.Data, want.Data)
	other := open(t, "llama", Config{Rope: func(layer int, cfg rope.Config) rope.Config {
		cfg.Scheme = rope.Linear{Factor: 2}
		return cfg
	}})
	must(t, other.Forward(got, ids))
	if got.Data[39*m.shape.Vocab] == want.Data[39*m.shape.Vocab] {
		t.Error("another rotation changes nothing")
	}
	st := newState(t, m, StateConfig{})
	if err := other.Step(got, ids, st); !errors.Is(err, ErrState) {
		t.Errorf("error %v of a state of another rotation", err)
	}
	must(t, mapped.Step(got, ids, st)) // the same weights
}

// TestAllocations: after the first calls nothing is allocated.
func TestAllocations(t *testing.T) {
	for _, name := range laws {
		m := open(t, name, Config{Workers: 2})
		st := newState(t, m, StateConfig{MaxTokens: 1000, Length: 1000})
		logits, ids := zeros(1, m.shape.Vocab), tokens(m, 1)
		step := func() { must(t, m.Step(logits, ids, st)) }
		step()
		step()
		if n := testing.AllocsPerRun(100, step); n > 0 {
			t.Errorf("%s: %v allocations a token", name, n)
		}
	}
}

// TestErrors: files that are wrong are told by name.
func TestErrors(t *testing.T) {
	folder := func(change func(config string) string, files ...string) string {
		dir := t.TempDir()
		text, err := os.ReadFile(goldenFolder + "llama/config.json")
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(change(string(text))), 0o600))
		for _, name := range files {
			data, err := os.ReadFile(goldenFolder + "llama/" + name)
			must(t, err)
			must(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
		}
		return dir
	}
	replace := func(from, to string) func(string) string {
		return func(s string) string {
			if !strings.Contains(s, from) {
				t.Fatalf("no %s in the configuration", from)
			}
			return strings.Replace(s, from, to, 1)
		}
	}
	const file = "model.safetensors"
	for _, c := range []struct {
		want   string
		kind   error
		change func(string) string
	}{
		{`model_type is "gpt2", want one of`, ErrConfig, replace(`"model_type": "llama"`, `"model_type": "gpt2"`)},
		{"no hidden_size", ErrConfig, replace(`"hidden_size"`, `"hidden_dim"`)},
		{"num_attention_heads is 4, no multiple of num_key_value_heads = 3", ErrConfig, replace(`"num_key_value_heads": 2`, `"num_key_value_heads": 3`)},
		{"rms_norm_eps is -1", ErrConfig, replace(`1e-05`, `-1`)},
		{"hidden_act is", ErrConfig, replace(`"silu"`, `"relu"`)},
		{`quantized by "gptq"`, ErrConfig, replace(`"use_cache": true`, `"quantization_config": {"quant_method": "gptq"}`)},
		{"embed_tokens.weight has the shape [97 48], want [98 48]", ErrCheckpoint, replace(`"vocab_size": 97`, `"vocab_size": 98`)},
		{"no tensor model.layers.2", ErrCheckpoint, replace(`"num_hidden_layers": 2`, `"num_hidden_layers": 3`)},
		{"no tensor model.layers.0.self_attn.q_proj.bias", ErrCheckpoint, replace(`"attention_bias": false`, `"attention_bias": true`)},
	} {
		if _, err := Open(folder(c.change, file), Config{}); !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "transformer: ") {
			t.Errorf("error %v, want %s", err, c.want)
		}
	}
	unchanged := func(s string) string { return s }
	if _, err := Open(folder(unchanged), Config{}); err == nil {
		t.Error("a folder without weights opens")
	}
	dir := folder(unchanged, file)
	data, err := os.ReadFile(filepath.Join(dir, file))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, file), data[:len(data)-100], 0o600))
	if _, err := Open(dir, Config{}); !errors.Is(err, ErrCheckpoint) {
		t.Errorf("error %v of a file that is cut off", err)
	}
	for _, cfg := range []Config{{Workers: -1}, {Format: 9}, {MaxBytes: -1}, {Precision: 4}, {Precision: asm.BFloat16x3, Format: asm.BFloat16}} {
		if _, err := Open(goldenFolder+"llama", cfg); !errors.Is(err, ErrConfig) {
			t.Errorf("error %v of %+v", err, cfg)
		}
	}
	m := open(t, "llama", Config{})
	if err := m.Forward(zeros(1, m.shape.Vocab), []int32{97}); !errors.Is(err, ErrShape) {
		t.Errorf("error %v of a token out of range", err)
	}
	if err := m.Run(t.Context(), nil); !errors.Is(err, ErrCall) {
		t.Errorf("error %v of no call", err)
	}
	for _, cfg := range []StateConfig{{Window: -1}, {Keep: 3}, {MaxTokens: -1}, {Format: 9}, {Policy: 7}} {
		if _, err := m.NewState(cfg); !errors.Is(err, ErrConfig) {
			t.Errorf("error %v of %+v", err, cfg)
		}
	}
	var none blas32.General
	if err := m.Step(none, nil, nil); !errors.Is(err, ErrState) {
		t.Errorf("error %v of no state", err)
	}
}

// TestUnread: a tensor that the configuration does not tell of is an error, and a model
// without a head has hidden states but no logits.
func TestUnread(t *testing.T) {
	text, err := os.ReadFile(goldenFolder + "llama_tied_sharded/config.json")
	must(t, err)
	open := func(name, config string) (*Model, error) {
		dir := t.TempDir()
		files, err := filepath.Glob(goldenFolder + name + "/model*")
		must(t, err)
		for _, f := range files {
			data, err := os.ReadFile(f)
			must(t, err)
			must(t, os.WriteFile(filepath.Join(dir, filepath.Base(f)), data, 0o600))
		}
		must(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600))
		return Open(dir, Config{})
	}
	if _, err := open("llama_tied_sharded", strings.Replace(string(text), `"mlp_bias": true`, `"mlp_bias": false`, 1)); !errors.Is(err, ErrCheckpoint) || !strings.Contains(err.Error(), "bias") {
		t.Errorf("error %v of biases that are not read", err)
	}
	m, err := open("llama_tied_sharded", strings.Replace(string(text), `"tie_word_embeddings": true`, `"tie_word_embeddings": false`, 1))
	must(t, err)
	if err := m.Forward(zeros(1, 97), []int32{1}); !errors.Is(err, ErrCall) {
		t.Errorf("error %v of logits without a head", err)
	}
	must(t, m.Run(t.Context(), &Call{Tokens: []int32{1}, Pooled: make([]float32, m.shape.Dim), Pooling: Last}))
}
