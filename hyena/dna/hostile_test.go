package dna

import (
	"testing"

	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state/statetest"
)

// TestHostileStates reads files of states that another program has changed.
func TestHostileStates(t *testing.T) {
	d := small
	d.order = 3
	m, ids := d.random(4).model(t, d.config()), bases(1, 40)
	st := newState(t, m, StateConfig{})
	must(t, m.Step(mat.New(30, m.cfg.Vocab), ids[:30], st))
	statetest.Mutate(t, st, m.ReadState, func(st *State) error {
		if err := m.Step(mat.New(1, m.cfg.Vocab), ids[30:31], st); err != nil {
			return err
		}
		return m.Step(mat.New(9, m.cfg.Vocab), ids[31:], st)
	})
}
