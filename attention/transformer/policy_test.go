package transformer

import (
	"errors"
	"testing"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/attention/kvcache"
)

// TestPolicies: a policy that reads everything gives the model's own logits, whatever
// layers have it; states fork and go back; what cannot be is an error.
func TestPolicies(t *testing.T) {
	m, err := Open(stories, Config{})
	must(t, err)
	tokens := make([]int32, 60)
	for i := range tokens {
		tokens[i] = int32(3 + i*7%100)
	}
	v := m.shape.Vocab
	want := zeros(len(tokens), v)
	must(t, m.Forward(want, tokens))
	for what, layers := range map[string]func(int) *kvcache.Config{
		"all layers":  func(int) *kvcache.Config { return &kvcache.Config{Select: kvcache.Top{TopK: 1000}} },
		"every other": func(l int) *kvcache.Config { return map[int]*kvcache.Config{1: {Select: kvcache.All{}}}[l%2] },
		"in the cache": func(int) *kvcache.Config {
			return &kvcache.Config{Select: kvcache.TokenSelect{TopK: 1000}, Positions: kvcache.InCache}
		},
		"heavy hitters": func(int) *kvcache.Config { return &kvcache.Config{Evict: kvcache.H2O{Budget: 1000}} },
	} {
		st := newState(t, m, StateConfig{Policies: layers})
		got := zeros(len(tokens), v)
		first := zeros(40, v)
		must(t, m.Step(first, tokens[:40], st))
		copy(got.Data, first.Data)
		fork := st.Clone()
		must(t, m.Step(zeros(5, v), tokens[:5], fork))
		rest := zeros(len(tokens)-40, v)
		must(t, m.Step(rest, tokens[40:], st))
		copy(got.Data[40*v:], rest.Data)
		for i, x := range want.Data {
			if d := got.Data[i] - x; d > 1e-3 || d < -1e-3 {
				t.Fatalf("%s: logit %d of token %d is %v, want %v", what, i%v, i/v, got.Data[i], x)
			}
		}
		if what != "every other" && Past(st, 0).Held(0) != len(tokens) {
			t.Errorf("%s: layer 0 holds %d tokens, want %d", what, Past(st, 0).Held(0), len(tokens))
		}
	}
	// An endless text in constant memory.
	st := newState(t, m, StateConfig{Policies: func(int) *kvcache.Config {
		return &kvcache.Config{Keep: 2, Recent: 14, Evict: kvcache.StreamingLLM{}, Positions: kvcache.InCache, Chunk: 1}
	}})
	for range 20 {
		must(t, m.Step(zeros(len(tokens), v), tokens, st))
	}
	if p := Past(st, 1); p.Len() != 20*len(tokens) || p.Held(0) != 16 {
		t.Errorf("%d tokens seen and %d held, want %d and 16", p.Len(), p.Held(0), 20*len(tokens))
	}
	if err := st.Truncate(st.Len() - 3); !errors.Is(err, subquad.ErrState) {
		t.Errorf("Truncate across what is forgotten: %v", err)
	}
	for what, layers := range map[string]*kvcache.Config{
		"a shape": {Heads: 2}, "a budget": {Keep: 5, Recent: 5, Evict: kvcache.H2O{Budget: 9}}, "far without near": {Positions: kvcache.Far},
	} {
		if _, err := m.NewState(StateConfig{Policies: func(int) *kvcache.Config { return layers }}); !errors.Is(err, subquad.ErrConfig) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if Past(newState(t, m, StateConfig{}), 0) != nil || Past(nil, 0) != nil || Past(st, -1) != nil || Past(st, 99) != nil {
		t.Error("a Past where there is none")
	}
}
