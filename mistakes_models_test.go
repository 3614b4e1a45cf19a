package subquad_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/subquad/subquad/hyena/dna"
	"github.com/subquad/subquad/internal/weights/weightstest"
	"github.com/subquad/subquad/merge"
	"github.com/subquad/subquad/merge/maelre"
	"github.com/subquad/subquad/ssm"
	"github.com/subquad/subquad/ssm/longmamba"
	"github.com/subquad/subquad/ssm/mamba"
)

func init() { rooms = append(rooms, dnaRoom, fastaRoom, mambaRoom, maelreFiles) }

// The width and vocabulary of the models.
const dim, vocab = 12, 24

// maker returns what puts tensors of random numbers into a checkpoint.
func maker(s weightstest.State, prefix string, seed uint64) func(name string, scale, offset float64, shape ...int) {
	r := rand.New(rand.NewPCG(seed, 1))
	return func(name string, scale, offset float64, shape ...int) { s.Put(r, prefix+name, scale, offset, shape...) }
}

func dnaFile(seed uint64) []byte {
	const up, hidden = 20, 8
	s := weightstest.State{}
	put := maker(s, "backbone.", seed)
	layer := func(name string, out, in int) {
		put(name+".weight", 0.3, 0, out, in)
		put(name+".bias", 0.1, 0, out)
	}
	norm := func(name string) {
		put(name+".weight", 0.1, 1, dim)
		put(name+".bias", 0.1, 0, dim)
	}
	put("embeddings.word_embeddings.weight", 1, 0, vocab, dim)
	norm("ln_f")
	for i := range 2 {
		p := fmt.Sprintf("layers.%d.", i)
		norm(p + "norm1")
		norm(p + "norm2")
		layer(p+"mlp.fc1", up, dim)
		layer(p+"mlp.fc2", dim, up)
		layer(p+"mixer.in_proj", 3*dim, dim)
		layer(p+"mixer.out_proj", dim, dim)
		put(p+"mixer.short_filter.weight", 0.5, 0, 3*dim, 1, 3)
		put(p+"mixer.short_filter.bias", 0.1, 0, 3*dim)
		put(p+"mixer.filter_fn.bias", 1, 0, dim)
		f := p + "mixer.filter_fn.implicit_filter."
		layer(f+"0", hidden, 5)
		layer(f+"2", hidden, hidden)
		put(f+"4.weight", 0.1, 0, dim, hidden)
		put(f+"1.freq", 0.1, 2, 1, hidden)
	}
	return s.File()
}

func ids() []int32 { return []int32{7, 8, 9, 10, 8, 7, 10} }

func dnaRoom(b *builder) {
	file, second := dnaFile(1), dnaFile(2)
	cfg := dna.Config{MaxLen: 64}
	read := func() []any { return []any{bytes.NewReader(file), int64(len(file)), cfg} }
	b.add("dna.Read", dna.Read, read)
	path := filepath.Join(b.t.TempDir(), "dna.safetensors")
	must(0, os.WriteFile(path, file, 0o600))
	b.add("dna.Open", dna.Open, func() []any { return []any{path, cfg, nil} })
	b.add("dna.ParseConfig", dna.ParseConfig, func() []any {
		return []any{[]byte(`{"d_model":12,"n_layer":2,"d_inner":20,"vocab_size":16,"layer":{"l_max":64}}`)}
	})
	m := must(dna.Read(bytes.NewReader(file), int64(len(file)), cfg))
	call := func() *dna.Call {
		return &dna.Call{Tokens: ids(), Hidden: matrix(tokens, dim), Logits: matrix(tokens, vocab), LogLikelihood: vector(tokens - 1), Pooled: vector(dim), Mask: make([]bool, tokens)}
	}
	other := must(dna.Read(bytes.NewReader(second), int64(len(second)), cfg))
	state := func() *dna.State { return newState(b.t, m, 0).(*dna.State) }
	logits := func(call any) any {
		if c := call.(*dna.Call); c.State == nil && c.States == nil {
			return matrix(tokens, dim) // Forward gives hidden states
		}
		return matrix(tokens, vocab)
	}
	b.operator(operator{op: m, other: other, pkg: "dna", never: true,
		whole: func() any { return call() },
		packed: func() any {
			c := call()
			c.Offsets, c.Pooled, c.LogLikelihood = []int{0, 3, 3, tokens}, vector(3*dim), nil
			return c
		},
		step: func() any { c := call(); c.State = state(); return c },
		batch: func() any {
			c := call()
			c.LogLikelihood, c.Pooled = nil, nil
			for range tokens {
				c.States = append(c.States, state())
			}
			return c
		},
		args: map[string]func(any) any{"dst": logits}})
	stored := filepath.Join(b.t.TempDir(), "state")
	var to bytes.Buffer
	must(state().WriteTo(&to))
	must(0, os.WriteFile(stored, to.Bytes(), 0o600))
	b.on(func() any { return m }, "OpenState", func() []any { return []any{stored, nil} })
	b.on(func() any { return m }, "RunBatch", func() []any { return []any{nowhere, []*dna.Call{call(), {Tokens: ids(), Hidden: matrix(tokens, dim)}}} }).never = true
	b.on(func() any { return m }, "EmbedInto", func() []any { return []any{nowhere, vector(dim), "ACGTACG"} }).never = true
	b.genomes(m, dim)
}

func fastaRoom(b *builder) {
	const text = ">a first\nACGTNacgt\nACG\n>b\nACG\n"
	b.add("dna.NewReader", dna.NewReader, func() []any { return []any{strings.NewReader(text)} })
	begun := func() any { return must(dna.NewReader(strings.NewReader(text))) }
	b.on(begun, "Next", func() []any { return nil })
	b.on(func() any {
		r := must(dna.NewReader(strings.NewReader(text)))
		must(r.Next())
		return r
	}, "Read", func() []any { return []any{make([]byte, 5)} })
	b.add("dna.ReverseComplement", dna.ReverseComplement, func() []any { return []any{make([]byte, 4), []byte("ACGT")} })
	b.add("dna.ReverseComplementRNA", dna.ReverseComplementRNA, func() []any { return []any{make([]byte, 4), []byte("ACGU")} })
	tokenizer := must(dna.NewTokenizer(dna.TokenizerConfig{MaxLen: 8}))
	b.on(func() any { return tokenizer }, "AppendDNA", func() []any { return []any{[]int32(nil), "ACGT"} })
	b.add("dna.NewSampler", dna.NewSampler, func() []any {
		return []any{dna.SampleConfig{RepetitionPenalty: 1.1, Temperature: 1, TopK: 3, TopP: 0.5, MinP: 0.1}}
	})
	b.add("dna.NewTokenizer", dna.NewTokenizer, func() []any { return []any{dna.TokenizerConfig{MaxLen: 8}} })
}

func mambaFile(seed uint64) []byte {
	const inner, rank, states, taps = 10, 2, 4, 4
	s := weightstest.State{}
	put := maker(s, "backbone.", seed)
	put("embedding.weight", 1, 0, vocab, dim)
	put("norm_f.weight", 0.1, 1, dim)
	for i := range 2 {
		p := fmt.Sprintf("layers.%d.", i)
		put(p+"norm.weight", 0.1, 1, dim)
		m := p + "mixer."
		put(m+"out_proj.weight", 0.2, 0, dim, inner)
		put(m+"in_proj.weight", 0.3, 0, 2*inner, dim)
		put(m+"conv1d.weight", 0.5, 0, inner, 1, taps)
		put(m+"conv1d.bias", 0.1, 0, inner)
		put(m+"x_proj.weight", 0.3, 0, rank+2*states, inner)
		put(m+"dt_proj.weight", 0.5, 0, inner, rank)
		put(m+"dt_proj.bias", 1, -2, inner)
		put(m+"A_log", 1, 0, inner, states)
		put(m+"D", 1, 0, inner)
	}
	return s.File()
}

func mambaRoom(b *builder) {
	cfg := mamba.Config{States: 4}
	file, second := mambaFile(1), mambaFile(2)
	b.add("mamba.Read", mamba.Read, func() []any { return []any{bytes.NewReader(file), int64(len(file)), cfg} })
	dir := b.t.TempDir()
	path := filepath.Join(dir, "mamba.safetensors")
	must(0, os.WriteFile(path, file, 0o600))
	b.add("mamba.Open", mamba.Open, func() []any { return []any{path, cfg, nil} })
	b.add("mamba.ParseConfig", mamba.ParseConfig, func() []any {
		return []any{[]byte(`{"model_type":"mamba","hidden_size":12,"num_hidden_layers":2,"vocab_size":24,"state_size":4}`)}
	})
	b.add("mamba.NewSampler", mamba.NewSampler, func() []any {
		return []any{mamba.SampleConfig{RepetitionPenalty: 1.1, Temperature: 1, TopK: 3, TopP: 0.5, MinP: 0.1}}
	})
	sampler := func() any {
		return must(mamba.NewSampler(mamba.SampleConfig{RepetitionPenalty: 1.1, Temperature: 1, TopK: 3, TopP: 0.5, MinP: 0.1}))
	}
	sample := b.on(sampler, "Sample", func() []any { return []any{vector(vocab)} })
	sample.pkg, sample.free = "mamba", []string{"logits."}
	m, other := must(mamba.Read(bytes.NewReader(file), int64(len(file)), cfg)), must(mamba.Read(bytes.NewReader(second), int64(len(second)), cfg))
	self := func() any { return m }
	b.bytes(m)
	state := languageModel[mamba.Call, *mamba.State](b, "mamba", m, other)
	alien := func() any { return newState(b.t, other, 0) }
	prefill := b.on(self, "Prefill", func() []any {
		return []any{nowhere, &mamba.PrefillCall{Tokens: ids(), State: state(), Last: matrix(1, vocab)}}
	})
	prefill.foreign, prefill.unseen, prefill.never = alien, true, true
	sequences := func() [][]int32 { return [][]int32{ids(), ids()} }
	b.on(self, "Calibrate", func() []any {
		return []any{nowhere, sequences(), longmamba.CalibrationConfig{TrainLength: tokens, Lengths: []int{tokens, 16}}}
	}).never = true
	filter := must(must(m.Calibrate(context.Background(), sequences(), longmamba.CalibrationConfig{Lengths: []int{tokens, 16}})).NewFilter(longmamba.FilterConfig{}))
	b.on(self, "Report", func() []any { return []any{nowhere, ids(), filter} }).never = true
	stored := filepath.Join(dir, "state")
	var to bytes.Buffer
	must(state().WriteTo(&to))
	must(0, os.WriteFile(stored, to.Bytes(), 0o600))
	b.on(self, "OpenState", func() []any { return []any{stored, nil} })
	seen := func() any {
		st := state()
		must(0, m.Step(matrix(tokens, vocab), ids(), st))
		return st
	}
	from := b.on(seen, "CopyFrom", func() []any { return []any{seen()} })
	from.foreign, from.pkg = alien, "mamba"
	prefixes := mamba.PrefixConfig{MaxBytes: 1 << 20}
	b.on(self, "NewPrefixes", func() []any { return []any{prefixes} })
	b.on(self, "NewBatch", func() []any { return []any{tokens} })
	var kept bytes.Buffer
	must(must(m.NewPrefixes(prefixes)).WriteTo(&kept))
	b.on(self, "ReadPrefixes", func() []any { return []any{bytes.NewReader(kept.Bytes()), prefixes} })
	b.on(func() any { return state() }, "SetFilter", func() []any { return []any{ssm.FilterSource(nil), 3} }).pkg = "mamba"
}

// maelreFiles are an encoder's checkpoints.
func maelreFiles(b *builder) {
	const dim, up = 8, 16
	s := weightstest.State{}
	put := maker(s, "", 1)
	for i := range 2 {
		p := fmt.Sprintf("blocks.%d.", i)
		for name, shape := range map[string][2]int{"qkv": {3 * dim, dim}, "proj": {dim, dim}, "fc1": {up, dim}, "fc2": {dim, up}} {
			put(p+name+".weight", 0.3, 0, shape[0], shape[1])
			put(p+name+".bias", 0.3, 0, shape[0])
		}
		put(p+"ln1.weight", 0.1, 1, dim)
		put(p+"ln2.weight", 0.1, 1, dim)
	}
	put("ln.weight", 0.1, 1, dim)
	put("head.weight", 0.1, 1, 3, dim)
	file := s.File()
	cfg := maelre.Config{Heads: 2, Matching: must(merge.New(merge.Config{})), Ratios: []float64{0.5, 0.5}}
	b.add("maelre.Read", maelre.Read, func() []any { return []any{bytes.NewReader(file), int64(len(file)), cfg} })
	path := filepath.Join(b.t.TempDir(), "maelre.safetensors")
	must(0, os.WriteFile(path, file, 0o600))
	b.add("maelre.Open", maelre.Open, func() []any { return []any{path, cfg, nil} })
}

// languageModel adds the mistakes over the operator that a language model is, C being its Call
// and S its state, whose names all packages share. It returns what makes a state.
func languageModel[C, S any](b *builder, pkg string, m, other any) (state func() S) {
	set := func(c *C, field string, v any) { reflect.ValueOf(c).Elem().FieldByName(field).Set(reflect.ValueOf(v)) }
	call := func() *C {
		c := new(C)
		for field, v := range map[string]any{
			"Tokens": ids(), "Hidden": matrix(tokens, dim), "Logits": matrix(tokens, vocab), "LogLikelihood": vector(tokens - 1),
			"Pooled": vector(dim), "Mask": make([]bool, tokens), "Last": matrix(1, vocab),
		} {
			set(c, field, v)
		}
		return c
	}
	state = func() S { return newState(b.t, m, 0).(S) }
	b.operator(operator{op: m, other: other, pkg: pkg, never: true,
		whole: func() any { return call() },
		packed: func() any {
			c := call()
			set(c, "Offsets", []int{0, 3, 4, tokens})
			set(c, "Pooled", vector(3*dim))
			set(c, "LogLikelihood", []float32(nil))
			set(c, "Last", matrix(3, vocab))
			return c
		},
		step: func() any { c := call(); set(c, "State", state()); return c },
		batch: func() any {
			c := call()
			set(c, "LogLikelihood", []float32(nil))
			set(c, "Pooled", []float32(nil))
			set(c, "Last", matrix(tokens, vocab))
			var states []S
			for range tokens {
				states = append(states, state())
			}
			set(c, "States", states)
			return c
		},
		args: map[string]func(any) any{"dst": func(any) any { return matrix(tokens, vocab) }}})
	if _, ok := reflect.TypeOf(m).MethodByName("RunBatch"); ok {
		batch := b.on(func() any { return m }, "RunBatch", func() []any {
			next := new(C)
			set(next, "Tokens", ids())
			set(next, "State", state())
			set(next, "Hidden", matrix(tokens, dim))
			return []any{nowhere, []*C{call(), next}}
		})
		batch.foreign, batch.never = func() any { return newState(b.t, other, 0) }, true
	}
	return state
}
