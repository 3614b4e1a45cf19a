package cca

import (
	"testing"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state/statetest"
)

// TestHostileFiles reads files of states that another program has changed.
func TestHostileFiles(t *testing.T) {
	for _, x := range []struct {
		cfg   Config
		state StateConfig
	}{
		{Config{GroupSize: 2, Window: 3, Levels: 2}, StateConfig{}},
		{Config{GroupSize: 3, Window: 4, Levels: 3, Span: 1, CountTokens: true}, StateConfig{MaxTokens: 30, Rollback: 2, Format: asm.Int8}},
		{Config{GroupSize: 2, Window: 2, Pooling: 1}, StateConfig{Rollback: 40, Format: asm.BFloat16}},
	} {
		x.cfg.Heads, x.cfg.KVHeads, x.cfg.HeadDim = 4, 2, 2
		c := mustCCA(t, x.cfg)
		s, err := c.NewState(x.state)
		if err != nil {
			t.Fatal(err)
		}
		q, k := matrix(1, 28, 8), matrix(2, 28, 4)
		step := func(from, to int) func(s *State) error {
			return func(s *State) error {
				return c.Step(mat.New(to-from, 8), mat.Rows(q, from, to), mat.Rows(k, from, to), mat.Rows(k, from, to), s)
			}
		}
		if err := step(0, 23)(s); err != nil {
			t.Fatal(err)
		}
		statetest.Mutate(t, s, c.ReadState, func(s *State) error {
			if err := step(23, 24)(s); err != nil {
				return err
			}
			return step(24, 28)(s)
		})
	}
}
