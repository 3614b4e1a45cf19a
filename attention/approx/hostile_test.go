package approx

import (
	"context"
	"testing"

	"github.com/subquad/subquad/internal/state/statetest"
)

// TestHostileFiles reads files of states of every operator that another program has changed.
func TestHostileFiles(t *testing.T) {
	for _, op := range operators(t, shape{2, 1, 2, 3}, 1) {
		l := featuredOf(op.run)
		if l == nil || l.still != "" {
			continue
		}
		step := func(s *LinearState, n int) error {
			c := randomCall(1, l.sums.shape, n, n)
			c.State = s
			return l.attend(context.Background(), c.call())
		}
		for _, n := range []int{3, foldTokens + 9} {
			s := value[*LinearState](t)(l.newState(StateConfig{}))
			if err := step(s, n); err != nil {
				t.Fatal(err)
			}
			statetest.Mutate(t, s, l.readState, func(s *LinearState) error {
				if err := step(s, 1); err != nil {
					return err
				}
				return step(s, 70)
			})
		}
	}
}
