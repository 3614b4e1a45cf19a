package mamba

import (
	"testing"

	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state/statetest"
)

// TestHostileStates reads files of states that another program has changed.
func TestHostileStates(t *testing.T) {
	for _, m := range models(t) {
		ids := tokens(1, 40)
		st := newState(t, m, 0)
		must(t, m.Step(mat.New(30, vocab), ids[:30], st))
		statetest.Mutate(t, st, m.ReadState, func(st *State) error {
			if err := m.Step(mat.New(1, vocab), ids[30:31], st); err != nil {
				return err
			}
			return m.Step(mat.New(9, vocab), ids[31:], st)
		})
	}
}
