package transformer

import (
	"testing"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/attention/approx"
	"github.com/subquad/subquad/attention/cca"
)

// TestReplacedBytes: StateBytes is what a state of a model with other operators takes, and beyond
// some tokens no less.
func TestReplacedBytes(t *testing.T) {
	m, _ := tinyLlama(t, 3, Config{Attention: func(layer int, cfg attention.Config) (*Replacement, error) {
		switch layer {
		case 0:
			op, err := cca.New(cca.Config{Heads: cfg.Heads, KVHeads: cfg.KVHeads, HeadDim: cfg.HeadDim, Scale: cfg.Scale, GroupSize: 8, Window: 64})
			must(t, err)
			return Replace(op, func(c StateConfig) (*cca.State, error) { return op.NewState(cca.StateConfig{MaxTokens: c.MaxTokens}) }, op.ReadState), nil
		case 1:
			op, err := approx.NewLinear(approx.LinearConfig{Heads: cfg.Heads, KVHeads: cfg.KVHeads, HeadDim: cfg.HeadDim, Causal: true})
			must(t, err)
			return Replace(op, func(StateConfig) (*approx.LinearState, error) { return op.NewState(approx.StateConfig{}) }, op.ReadState), nil
		}
		return nil, nil
	}})
	exact, _ := tinyLlama(t, 3, Config{})
	for _, n := range []int{1, 100, 1024, 3000} {
		for what, m := range map[string]*Model{"replaced": m, "exact": exact} {
			st := newState(t, m, StateConfig{MaxTokens: n})
			must(t, m.Run(t.Context(), &Call{Tokens: tinyTokens(n), State: st}))
			got, want := m.StateBytes(n), st.Bytes()
			if got < want || (n <= 1024 || what == "exact") && got != want || float64(got) > 1.1*float64(want) {
				t.Errorf("%s, %d tokens: %d bytes, want %d", what, n, got, want)
			}
		}
		if a, b := m.StateBytes(n), exact.StateBytes(n); n > 100 && a >= b {
			t.Errorf("%d tokens: %d bytes with replacements, %d without", n, a, b)
		}
	}
	if got := m.StateBytes(1<<31 - 1); got <= 0 {
		t.Errorf("%d bytes of very many tokens", got)
	}
	if a, b := m.Bytes(), exact.Bytes(); a != b { // neither operator has weights
		t.Errorf("%d bytes of weights, want %d", a, b)
	}
}
