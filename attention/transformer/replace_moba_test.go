package transformer

import (
	"bytes"
	"testing"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/attention/sparse"
	"github.com/subquad/subquad/internal/mat"
)

// TestReplaceMoBA: a model with MoBA in all its layers, exact where it reads all blocks, and
// its states.
func TestReplaceMoBA(t *testing.T) {
	const n = 100
	ids := tinyTokens(n)
	config := func(top int) Config {
		return Config{Attention: func(_ int, cfg attention.Config) (*Replacement, error) {
			op, err := sparse.NewMoBA(sparse.MoBAConfig{Heads: cfg.Heads, KVHeads: cfg.KVHeads, HeadDim: cfg.HeadDim, Scale: cfg.Scale, Block: 8, TopK: top})
			if err != nil {
				return nil, err
			}
			newState := func(c StateConfig) (*sparse.MoBAState, error) {
				return op.NewState(sparse.MoBAStateConfig{MaxTokens: c.MaxTokens})
			}
			return Replace(op, newState, op.ReadState), nil
		}}
	}
	m, _ := tinyLlama(t, 2, config(3))
	exact, _ := tinyLlama(t, 2, Config{})
	all, _ := tinyLlama(t, 2, config(50))
	want, got := zeros(n, tinyVocab), zeros(n, tinyVocab)
	must(t, exact.Forward(want, ids))
	must(t, all.Forward(got, ids))
	near(t, "all blocks", got.Data, want.Data, 2e-5)
	must(t, m.Forward(want, ids))
	st := newState(t, m, StateConfig{MaxTokens: n})
	must(t, m.Step(mat.Rows(got, 0, 60), ids[:60], st))
	must(t, m.Step(mat.Rows(got, 60, 61), ids[60:61], st))
	fork := st.Clone()
	var file bytes.Buffer
	_, err := st.WriteTo(&file)
	must(t, err)
	must(t, m.Step(mat.Rows(got, 61, n), ids[61:], st))
	near(t, "steps", got.Data, want.Data, 2e-5)
	if said, held := m.StateBytes(n), st.Bytes(); said < held || said > held+held/4 {
		t.Errorf("a state of %d tokens has %d bytes, said %d", n, held, said)
	}
	read, err := m.ReadState(&file)
	must(t, err)
	must(t, st.Truncate(61))
	for what, s := range map[string]*State{"fork": fork, "read": read, "cut back": st} {
		again := zeros(n-61, tinyVocab)
		must(t, m.Step(again, ids[61:], s))
		same(t, what, again.Data, mat.Rows(got, 61, n).Data)
	}
}
