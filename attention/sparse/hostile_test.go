package sparse

import (
	"testing"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state/statetest"
)

// TestHostileFiles reads files of states that another program has changed.
func TestHostileFiles(t *testing.T) {
	q, k, gate := matrix(1, 28, 8), matrix(2, 28, 4), matrix(3, 28, 4)
	for _, format := range []asm.Format{asm.Float32, asm.Int8} {
		m := mustMoBA(t, MoBAConfig{Heads: 4, KVHeads: 2, HeadDim: 2, Block: 4, TopK: 2})
		ms, err := m.NewState(MoBAStateConfig{MaxTokens: 30, Format: format})
		if err != nil {
			t.Fatal(err)
		}
		step := func(s *MoBAState, from, to int) error {
			return m.Step(mat.New(to-from, 8), mat.Rows(q, from, to), mat.Rows(k, from, to), mat.Rows(k, from, to), s)
		}
		if err := step(ms, 0, 22); err != nil {
			t.Fatal(err)
		}
		statetest.Mutate(t, ms, m.ReadState, func(s *MoBAState) error {
			if err := step(s, 22, 23); err != nil {
				return err
			}
			return step(s, 23, 28)
		})
		a := mustNSA(t, NSAConfig{Heads: 4, KVHeads: 2, HeadDim: 2, Block: 4, TopK: 2, Compress: 4, Stride: 2, Window: 5})
		as := mustNSAState(t, a, NSAStateConfig{MaxTokens: 30, Format: format})
		stepNSA := func(s *NSAState, from, to int) error {
			g := mat.Rows(gate, from, to)
			return a.Step(mat.New(to-from, 8), mat.Rows(q, from, to), mat.Rows(k, from, to), mat.Rows(k, from, to), Gates{g, g, g}, s)
		}
		if err := stepNSA(as, 0, 22); err != nil {
			t.Fatal(err)
		}
		statetest.Mutate(t, as, a.ReadState, func(s *NSAState) error {
			if err := stepNSA(s, 22, 23); err != nil {
				return err
			}
			return stepNSA(s, 23, 28)
		})
	}
}
