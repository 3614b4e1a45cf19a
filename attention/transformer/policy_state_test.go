package transformer

import (
	"bytes"
	"errors"
	"testing"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention/kvcache"
	"github.com/subquad/subquad/internal/mat"
)

// policies are states whose layers look at, or hold, a part of the past.
func policies() map[string]StateConfig {
	each := func(p kvcache.Config) func(int) *kvcache.Config {
		return func(int) *kvcache.Config { c := p; return &c }
	}
	return map[string]StateConfig{
		"TokenSelect":        {Policies: each(kvcache.Config{Keep: 2, Recent: 8, Chunk: 4, Select: kvcache.TokenSelect{TopK: 16}, Positions: kvcache.InCache})},
		"a cache of choices": {Policies: each(kvcache.Config{Keep: 2, Recent: 8, Chunk: 4, Select: kvcache.Cached{Select: kvcache.TokenSelect{TopK: 16}, Similarity: 0.5}})},
		"Quest, bfloat16":    {Format: asm.BFloat16, Policies: each(kvcache.Config{Recent: 8, Select: kvcache.Quest{Page: 4, Budget: 16}})},
		"Shadow":             {Policies: each(kvcache.Config{Keep: 1, Recent: 8, Chunk: 1, Select: kvcache.Shadow{TopK: 8}})},
		"InfLLM":             {Policies: each(kvcache.Config{Keep: 2, Recent: 16, Chunk: 4, Select: kvcache.InfLLM{Block: 4, TopK: 3, Representatives: 2}, Positions: kvcache.Far})},
		"H2O":                {Policies: each(kvcache.Config{Recent: 8, Chunk: 4, Evict: kvcache.H2O{Budget: 24}})},
		"SirLLM":             {Policies: each(kvcache.Config{Keep: 2, Recent: 8, Chunk: 4, Evict: kvcache.SirLLM{Tokens: 12}, Positions: kvcache.InCache})},
		"StreamingLLM, int8": {Format: asm.Int8, Policies: each(kvcache.Config{Keep: 2, Recent: 22, Chunk: 1, Evict: kvcache.StreamingLLM{}, Positions: kvcache.InCache})},
		"a layer of two kinds": {MaxTokens: 100, Policies: func(l int) *kvcache.Config {
			return map[int]*kvcache.Config{1: {Recent: 8, Chunk: 1, Select: kvcache.TokenSelect{TopK: 16}}}[l]
		}},
	}
}

// TestPolicyStates: states whose layers have policies are forked, stored, and cut back where
// they can, and go on bit for bit; what cannot be is an error that changes nothing.
func TestPolicyStates(t *testing.T) {
	m, err := Open(stories, Config{})
	must(t, err)
	again, err := Open(stories, Config{})
	must(t, err)
	ids, v := tokens(m, 100), m.shape.Vocab
	for what, cfg := range policies() {
		if testing.Short() && (what == "InfLLM" || what == "Shadow") {
			continue
		}
		run := func(st *State, from, to int) []float32 {
			got := zeros(to-from, v)
			for at := from; at < to; at += 4 {
				must(t, m.Step(mat.Rows(got, at-from, min(at+4, to)-from), ids[at:min(at+4, to)], st))
			}
			return got.Data
		}
		st := newState(t, m, cfg)
		run(st, 0, 60)
		want := run(st.Clone(), 60, 100)
		var file bytes.Buffer
		n, err := st.WriteTo(&file)
		must(t, err)
		if int(n) != file.Len() {
			t.Errorf("%s: WriteTo says %d bytes of %d", what, n, file.Len())
		}
		// Another way first, which the state does not feel.
		fork := st.Clone()
		must(t, m.Step(zeros(7, v), ids[:7], fork))
		read, err := again.ReadStateWith(bytes.NewReader(file.Bytes()), cfg)
		must(t, err)
		if read.Len() != 60 {
			t.Errorf("%s: a stored state of %d tokens, want 60", what, read.Len())
		}
		for l := range m.shape.Layers {
			if a, b := Past(st, l), Past(read, l); (a == nil) != (b == nil) || a != nil && (a.Held(0) != b.Held(0) || a.Len() != b.Len()) {
				t.Errorf("%s: layer %d holds something else once it was stored", what, l)
			}
		}
		same(t, what+", stored", run(read, 60, 100), want)
		same(t, what+", forked", run(st, 60, 100), want)
		// What was stored is stored again alike, also of what was read.
		twice, err := again.ReadStateWith(bytes.NewReader(file.Bytes()), cfg)
		must(t, err)
		var copied bytes.Buffer
		_, err = twice.WriteTo(&copied)
		must(t, err)
		if !bytes.Equal(copied.Bytes(), file.Bytes()) {
			t.Errorf("%s: a state that was read is stored as other bytes", what)
		}
		// Back: with snapshots to each of the last calls, and by itself where nothing was forgotten.
		with := cfg
		with.Snapshots = 11
		marked := newState(t, m, with)
		run(marked, 0, 100)
		must(t, marked.Truncate(60))
		same(t, what+", cut back to a snapshot", run(marked, 60, 100), want)
		if err := st.Truncate(56); err == nil {
			run(st, 56, 60)
			if got := run(st, 60, 100); what != "a cache of choices" { // which is made anew then
				same(t, what+", cut back", got, want)
			}
		} else if before := st.Len(); !errors.Is(err, ErrState) || before != 100 {
			t.Errorf("%s: Truncate of %d tokens: %v", what, before, err)
		}
		st.Reset()
		run(st, 0, 60)
		same(t, what+", reset", run(st, 60, 100), want)
		if cfg.MaxTokens > 0 {
			if err := m.Step(zeros(1, v), ids[:1], read); !errors.Is(err, ErrFull) {
				t.Errorf("%s: error %v of a full state that was stored", what, err)
			}
		}
		// Files that are cut, of other policies, and of none.
		for n := 0; n < file.Len(); n += 1 + file.Len()/40 {
			if _, err := m.ReadStateWith(bytes.NewReader(file.Bytes()[:n]), cfg); !errors.Is(err, ErrState) {
				t.Fatalf("%s: %d bytes of a state: %v", what, n, err)
			}
		}
		if _, err := m.ReadState(bytes.NewReader(file.Bytes())); !errors.Is(err, ErrState) {
			t.Errorf("%s: read without its policy: %v", what, err)
		}
		other := StateConfig{Policies: func(int) *kvcache.Config { return &kvcache.Config{Recent: 9} }}
		if _, err := m.ReadStateWith(bytes.NewReader(file.Bytes()), other); !errors.Is(err, ErrState) {
			t.Errorf("%s: read with another policy: %v", what, err)
		}
		plain := newState(t, m, StateConfig{})
		if err := plain.CopyFrom(st); !errors.Is(err, ErrState) || plain.Len() != 0 {
			t.Errorf("%s: copied into a state without policies: %v", what, err)
		}
		copies := newState(t, m, cfg)
		must(t, copies.CopyFrom(fork))
		same(t, what+", copied", run(copies, 67, 80), run(fork, 67, 80))
	}
	bad := StateConfig{Policies: func(int) *kvcache.Config { return &kvcache.Config{Heads: 3} }}
	if _, err := m.ReadStateWith(bytes.NewReader(nil), bad); !errors.Is(err, subquad.ErrConfig) && !errors.Is(err, ErrState) {
		t.Errorf("a policy that is none: %v", err)
	}
}
