package landmark

import (
	"testing"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state/statetest"
)

// TestHostileFiles reads files of states that another program has changed.
func TestHostileFiles(t *testing.T) {
	q, k := matrix(1, 28, 8), matrix(2, 28, 4)
	for _, cfg := range []StateConfig{{}, {MaxBlocks: 3, Format: asm.Int8}, {MaxBlocks: 20, Format: asm.Float16}} {
		l := mustLandmark(t, Config{Heads: 4, KVHeads: 2, HeadDim: 2, Block: 2, TopK: 2})
		s, err := l.NewState(cfg)
		if err != nil {
			t.Fatal(err)
		}
		step := func(s *State, from, to int) error {
			is := make([]bool, to-from)
			for i := range is {
				is[i] = l.IsLandmark(int64(s.Len()) + int64(i))
			}
			return l.Step(mat.New(to-from, 8), mat.Rows(q, from, to), mat.Rows(k, from, to), mat.Rows(k, from, to), is, s)
		}
		if err := step(s, 0, 22); err != nil {
			t.Fatal(err)
		}
		statetest.Mutate(t, s, l.ReadState, func(s *State) error {
			if err := step(s, 22, 23); err != nil {
				return err
			}
			return step(s, 23, 28)
		})
	}
	for _, cfg := range []MetaStateConfig{{}, {MaxTokens: 24, Format: asm.Int8}, {Format: asm.BFloat16}} {
		m := mustMeta(t, MetaConfig{Heads: 4, KVHeads: 2, HeadDim: 2})
		s, err := m.NewState(cfg)
		if err != nil {
			t.Fatal(err)
		}
		step := func(s *MetaState, from, to int) error {
			is := make([]bool, to-from)
			for i := range is {
				is[i] = i%3 < 2
			}
			return m.Step(mat.New(to-from, 8), mat.Rows(q, from, to), mat.Rows(k, from, to), mat.Rows(k, from, to), is, s)
		}
		if err := step(s, 0, 22); err != nil {
			t.Fatal(err)
		}
		statetest.Mutate(t, s, m.ReadState, func(s *MetaState) error {
			if err := step(s, 22, 23); err != nil {
				return err
			}
			return step(s, 23, 28)
		})
	}
}
