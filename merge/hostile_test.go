package merge

import (
	"testing"

	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state/statetest"
)

// TestHostileFiles reads files of states that another program has changed.
func TestHostileFiles(t *testing.T) {
	op, err := NewStream(StreamConfig{MetricDim: 2, Dim: 3, Above: 0.5})
	must(t, err)
	step := func(st *State, n int) error {
		_, err := op.Step(mat.New(n+1, 3), random(1, n, 3), random(2, n, 2), st)
		return err
	}
	for n := range 4 {
		st, err := op.NewState(StateConfig{})
		must(t, err)
		must(t, step(st, n))
		statetest.Mutate(t, st, op.ReadState, func(st *State) error {
			if err := step(st, 1); err != nil {
				return err
			}
			return step(st, 5)
		})
	}
}
