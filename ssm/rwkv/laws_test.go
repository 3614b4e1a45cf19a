package rwkv

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/weights"
	"github.com/subquad/subquad/internal/weights/weightstest"
)

const vectors = "../../testdata/golden/ssm_rwkv7_model_"

// stateDict returns the weights of a file of reference vectors.
func stateDict(t testing.TB, name string) weightstest.State {
	t.Helper()
	f, err := weights.Open(vectors + name + ".safetensors")
	must(t, err)
	defer f.Close()
	s := weightstest.State{}
	for _, name := range f.Names() {
		if param, ok := strings.CutPrefix(name, "param."); ok {
			data, err := f.Tensor(name).Float32()
			must(t, err)
			s[param] = weightstest.Tensor{Shape: f.Tensor(name).Shape, Data: data}
		}
	}
	return s
}

func read(t testing.TB, s weightstest.State, cfg Config) *Model {
	t.Helper()
	file := s.File()
	m, err := Read(bytes.NewReader(file), int64(len(file)), cfg)
	must(t, err)
	return m
}

func tokens(m *Model, n int) []int32 {
	r := rand.New(rand.NewPCG(uint64(n), 9))
	list := make([]int32, n)
	for i := range list {
		list[i] = int32(r.IntN(m.cfg.Vocab))
	}
	return list
}

// TestOpen opens files of PyTorch and safetensors, mapped and with a config.json, which must
// agree with the tensors.
func TestOpen(t *testing.T) {
	s := stateDict(t, "fla_names")
	want := zeros(9, 29)
	m := read(t, s, Config{})
	ids := tokens(m, 9)
	must(t, m.Forward(want, ids))
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "model.safetensors"), s.File(), 0o600))
	config := func(text string) { must(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o600)) }
	config(`{"model_type": "rwkv7", "hidden_size": 16, "num_hidden_layers": 2, "head_dim": 8, "vocab_size": 29, "norm_eps": 1e-5, "norm_first": true, "norm_bias": true,
		"hidden_act": "sqrelu", "attn": null, "fuse_norm": true, "intermediate_size": 32, "tie_word_embeddings": false, "decay_low_rank_dim": 4, "value_dim": [16, 16]}`)
	torch := filepath.Join(t.TempDir(), "rwkv.pth")
	must(t, os.WriteFile(torch, s.Torch(false), 0o600))
	for _, path := range []string{dir, torch} {
		m, err := Open(path, Config{GroupEps: 64e-5})
		must(t, err)
		got := zeros(9, 29)
		must(t, m.Forward(got, ids))
		same(t, path, got.Data, want.Data)
	}
	// The group norm's eps is the official one without a config.json, and that of flash linear
	// attention, HeadDim times the others', with one.
	for path, want := range map[string]float64{dir: 8e-5, torch: 64e-5} {
		m, err := Open(path, Config{})
		must(t, err)
		if got := m.Config().GroupEps; math.Abs(got/want-1) > 1e-9 {
			t.Errorf("%s: GroupEps is %v, want %v", path, got, want)
		}
	}
	// RWKV7Config: heads of 64 where no key says, hidden_size / num_heads where head_dim is null, 1e-5.
	for text, want := range map[string]float64{`{}`: 0, `{"head_dim": null, "num_heads": 2, "hidden_size": 16}`: 8e-5, `{"head_dim": 16, "num_heads": 2, "hidden_size": 16}`: 16e-5} {
		if c, err := ParseConfig([]byte(text)); err != nil || math.Abs(c.GroupEps-want) > 1e-12 { // 0 stands for 64 Eps
			t.Errorf("%s: %+v, error %v", text, c, err)
		}
	}
	for text, want := range map[string]string{
		`{"num_heads": -1}`:                       "num_heads",
		`{"model_type": "rwkv6"}`:                 "model_type",
		`{"hidden_act": "relu"}`:                  "hidden_act",
		`{"norm_first": false}`:                   "norm_first",
		`{"attn": {"layers": [1]}}`:               "attn",
		`{"norm_eps": -1}`:                        "norm_eps",
		`{"head_dim": 1.5}`:                       "head_dim",
		`{"hidden_size": "x"}`:                    "hidden_size",
		`{"num_hidden_layers": 4294967296000000}`: "num_hidden_layers",
		`{`: "config.json",
	} {
		config(text)
		if _, err := Open(dir, Config{}); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %s", text, err, want)
		}
	}
	for text, want := range map[string]string{
		`{"hidden_size": 24}`: "want [any 24]", `{"num_hidden_layers": 3}`: "2 blocks, want Layers = 3", `{"head_dim": 5}`: "HeadDim is 5", `{"vocab_size": 30}`: "want [30 16]",
	} {
		config(text)
		if _, err := Open(dir, Config{}); !errors.Is(err, ErrCheckpoint) || !strings.HasPrefix(err.Error(), "rwkv: ") {
			t.Errorf("%s: error %v, want %s", text, err, want)
		}
	}
}

// TestRWKVcpp reads the trained model as rwkv.cpp has it: tensors one after the other, their
// dimensions the innermost first, the mixes in one and matrices of low rank transposed.
func TestRWKVcpp(t *testing.T) {
	s := stateDict(t, "834K")
	m := read(t, s, Config{})
	file := []byte{}
	number := func(list ...int) {
		for _, n := range list {
			file = binary.LittleEndian.AppendUint32(file, uint32(n))
		}
	}
	number(0x67676d66, 101, 256, 64, 12, 0)
	put := func(name string, data []float32, shape ...int) {
		number(len(shape), len(name), 0)
		slices.Reverse(shape)
		number(shape...)
		file = append(file, name...)
		for _, v := range data {
			file = binary.LittleEndian.AppendUint32(file, math.Float32bits(v))
		}
	}
	var heads []int // where tensors begin
	for _, name := range slices.Sorted(maps.Keys(s)) {
		x, last := s[name], name[strings.LastIndexByte(name, '.')+1:]
		heads = append(heads, len(file))
		switch {
		case strings.Contains(name, ".att.x_"):
			if last != "x_r" {
				continue
			}
			var all []float32
			for _, letter := range "rwkvag" {
				all = append(all, s[strings.TrimSuffix(name, "r")+string(letter)].Data...)
			}
			put(strings.TrimSuffix(name, "r")+"rwkvag", all, 6, 64)
		case len(last) == 2 && (last[1] == '1' || last[1] == '2'):
			turned := transposed(blas32.General{Rows: x.Shape[0], Cols: x.Shape[1], Stride: x.Shape[1], Data: x.Data})
			put(name, turned.Data, turned.Rows, turned.Cols)
		case len(x.Shape) == 3:
			put(name, x.Data, x.Shape[2])
		default:
			put(name, x.Data, slices.Clone(x.Shape)...)
		}
	}
	path := filepath.Join(t.TempDir(), "rwkv7.bin")
	must(t, os.WriteFile(path, file, 0o600))
	other, err := Open(path, Config{})
	must(t, err)
	ids := tokens(m, 20)
	want, got := zeros(20, 256), zeros(20, 256)
	must(t, m.Forward(want, ids))
	must(t, other.Forward(got, ids))
	same(t, "rwkv.cpp", got.Data, want.Data)
	var cuts []int
	for n := 0; n < len(file); n += 1 + len(file)/40 {
		cuts = append(cuts, n)
	}
	for _, at := range []int{0, heads[0], heads[1], heads[len(heads)-1]} { // within what tells of a tensor, too
		for n := range 48 {
			cuts = append(cuts, at+n)
		}
	}
	for _, n := range cuts {
		if _, err := Read(bytes.NewReader(file[:n]), int64(n), Config{}); !errors.Is(err, ErrCheckpoint) {
			t.Errorf("%d bytes: error %v", n, err)
		}
	}
}

// TestMissing: a tensor that is missing is told by its name in the file, where a name of the
// file can be told, but for those that mean nothing.
func TestMissing(t *testing.T) {
	s := stateDict(t, "tiny")
	for name := range s {
		one := s.Renamed(func(n string) string {
			if n == name {
				return ""
			}
			return n
		})
		file := one.File()
		_, err := Read(bytes.NewReader(file), int64(len(file)), Config{})
		switch {
		case strings.HasPrefix(name, "blocks.0.att.v") && !strings.Contains(name, "value"):
			must(t, err)
		case !errors.Is(err, ErrCheckpoint):
			t.Errorf("without %s: error %v", name, err)
		}
	}
	for _, cfg := range []Config{{Workers: -1}, {Format: 9}, {Eps: -1}, {GroupEps: math.NaN()}, {Dim: -1}} {
		file := s.File()
		if _, err := Read(bytes.NewReader(file), int64(len(file)), cfg); !errors.Is(err, ErrConfig) {
			t.Errorf("error %v of %+v", err, cfg)
		}
	}
}

// TestLaws: no bit depends on workers or on what else is in a batch; states are forked, rolled
// back to snapshots and to nothing else, cancelled, and kept as prefixes.
func TestLaws(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		m := read(t, stateDict(t, "tiny"), Config{})
		const n, cut = 700, 130
		ids, v := tokens(m, n), m.cfg.Vocab
		want, got := zeros(n, v), zeros(n, v)
		must(t, m.Run(t.Context(), &Call{Tokens: ids, Logits: want, Workers: 1}))
		must(t, m.Run(t.Context(), &Call{Tokens: ids, Logits: got, Workers: 3}))
		same(t, "workers", got.Data, want.Data)
		a, b := zeros(cut, v), zeros(n-cut, v)
		must(t, m.Forward(a, ids[:cut]))
		must(t, m.Forward(b, ids[cut:]))
		must(t, m.Run(t.Context(), &Call{Tokens: ids, Offsets: []int{0, cut, cut, n}, Logits: got}))
		same(t, "packed", got.Data, slices.Concat(a.Data, b.Data))
		r := rand.New(rand.NewPCG(1, 3))
		st := newState(t, m, StateConfig{})
		for from := 0; from < n; {
			to := min(n, from+1+r.IntN(90))
			must(t, m.Step(mat.Rows(got, from, to), ids[from:to], st))
			from = to
		}
		near(t, "splits", got.Data, want.Data, 1e-5)

		st = newState(t, m, StateConfig{Snapshots: 2})
		for at := 0; at < 50; at += 10 {
			must(t, m.Step(zeros(10, v), ids[at:at+10], st))
		}
		fork := st.Clone()
		for _, to := range []int{45, 20} {
			if err := st.Truncate(to); !errors.Is(err, ErrState) || st.Len() != 50 {
				t.Errorf("error %v of a way back to %d tokens", err, to)
			}
		}
		must(t, st.Truncate(40))
		must(t, m.Step(zeros(10, v), ids[40:50], st))
		x, y := zeros(1, v), zeros(1, v)
		must(t, m.StepBatch(x, ids[50:51], []*State{st}))
		must(t, m.StepBatch(y, ids[50:51], []*State{fork}))
		same(t, "gone back", x.Data, y.Data)

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := m.Run(ctx, &Call{Tokens: ids, State: st, Last: x}); err != context.Canceled || st.Len() != 51 {
			t.Errorf("error %v, %d tokens", err, st.Len())
		}
		p, err := m.NewPrefixes(PrefixConfig{MaxBytes: 1 << 24, Every: 128})
		must(t, err)
		_, _, err = p.Prefill(t.Context(), ids[:300], x)
		must(t, err)
		known, k, err := p.Prefill(t.Context(), slices.Concat(ids[:290], []int32{1, 2}), x)
		must(t, err)
		must(t, m.Run(t.Context(), &Call{Tokens: slices.Concat(ids[:290], []int32{1, 2}), Last: y}))
		if k != 256 || known.Len() != 292 {
			t.Errorf("%d tokens were known of 290", k)
		}
		same(t, "a prefix", x.Data, y.Data) // cut at multiples of 64
	})
}

// TestFormats: weights in other formats take less memory, and give nearly the same.
func TestFormats(t *testing.T) {
	s := stateDict(t, "834K")
	m := read(t, s, Config{})
	ids := tokens(m, 40)
	want, got := zeros(40, 256), zeros(40, 256)
	must(t, m.Forward(want, ids))
	st, err := m.NewState(StateConfig{})
	must(t, err)
	if want := st.Bytes(); m.StateBytes(9) != want {
		t.Errorf("a state of %d bytes, want %d", m.StateBytes(9), want)
	}
	for format, tol := range map[asm.Format]float64{asm.Float16: 5e-3, asm.BFloat16: 5e-2, asm.Int8: 5e-2} {
		small := read(t, s, Config{Format: format})
		must(t, small.Forward(got, ids))
		near(t, format.String(), got.Data, want.Data, tol)
		if 3*small.Bytes() > 2*m.Bytes() {
			t.Errorf("%d bytes as %v, %d as Float32", small.Bytes(), format, m.Bytes())
		}
	}
}

// TestAllocations: after the first calls nothing is allocated.
func TestAllocations(t *testing.T) {
	m := read(t, stateDict(t, "tiny"), Config{Workers: 2})
	st := newState(t, m, StateConfig{})
	logits, ids := zeros(1, m.cfg.Vocab), []int32{3}
	step := func() { must(t, m.Step(logits, ids, st)) }
	step()
	step()
	if n := testing.AllocsPerRun(100, step); n > 0 {
		t.Errorf("%v allocations a token", n)
	}
	long, many := tokens(m, 200), zeros(200, m.cfg.Vocab)
	prefill := func() { must(t, m.Forward(many, long)) }
	prefill()
	prefill()
	if n := testing.AllocsPerRun(20, prefill); n > 0 {
		t.Errorf("%v allocations a text", n)
	}
}
