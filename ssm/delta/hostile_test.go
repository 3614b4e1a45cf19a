package delta

import (
	"math/rand/v2"
	"testing"

	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state/statetest"
)

// TestHostileFiles reads files of states of recurrences and blocks that another program has
// changed.
func TestHostileFiles(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 3))
	op := value[*Recurrence](t)(New(Config{Heads: 2, KeyDim: 3, ValueDim: 5, Decay: HeadDecay, Erase: EraseKey, Workers: 1}))
	call := lawCall(r, op, 80)
	step := func(st *State, from, to int) error {
		c := call.part(from, to)
		c.State = st
		return op.Run(t.Context(), c)
	}
	st := value[*State](t)(op.NewState(StateConfig{}))
	must(t, step(st, 0, 9))
	statetest.Mutate(t, st, op.ReadState, func(st *State) error {
		if err := step(st, 9, 10); err != nil {
			return err
		}
		return step(st, 10, 80)
	})
	for _, name := range []string{"GatedDelta", "KDA", "RWKV7", "RWKV7FFN"} {
		op := blocks(t, 1)[name]
		x, first := random(r, 30, testDim), firstOf(op, 30)
		step := func(st *State, from, to int) error {
			c := &BlockCall{Dst: zeros(to-from, testDim), X: mat.Rows(x, from, to), State: st}
			if mat.Given(first) {
				c.First = mat.Rows(first, from, to)
			}
			return op.Run(t.Context(), c)
		}
		st := value[*State](t)(op.NewState(StateConfig{}))
		must(t, step(st, 0, 9))
		statetest.Mutate(t, st, op.ReadState, func(st *State) error {
			if err := step(st, 9, 10); err != nil {
				return err
			}
			return step(st, 10, 30)
		})
	}
}
