package ssm

import (
	"io"
	"testing"

	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state/statetest"
)

// TestHostileFiles reads files of states of every operator that another program has changed.
func TestHostileFiles(t *testing.T) {
	mamba := value[*Mamba](t)(NewMamba(MambaConfig{}, mambaWeights(4, 3, 2, 3, 4)))
	mamba2 := value[*Mamba2](t)(NewMamba2(Mamba2Config{States: 2, HeadDim: 3, Groups: 1}, mamba2Weights(4, 0, 2, 3, 2, 1, 4)))
	for _, op := range []stepper{
		testScan(t, 3, 2, 1), testSSD(t, 2, 3, 2, 1, false), testConv(t, 3, 4), testSISO(t, 2, 3, 4, 1, 2), testBlock(&mamba.block, 0), testBlock(&mamba2.block, 0),
	} {
		x := random(1, 80, op.in, 1, 0)
		step := func(st *State, from, to int) error {
			return op.run(t.Context(), mat.New(to-from, op.out), mat.Rows(x, from, to), batch{state: st}, nil, 1)
		}
		st := value[*State](t)(op.newState(StateConfig{}))
		must(t, step(st, 0, 9))
		read := func(r io.Reader) (*State, error) {
			file, err := io.ReadAll(r)
			must(t, err)
			return op.read(file)
		}
		statetest.Mutate(t, st, read, func(st *State) error {
			if err := step(st, 9, 10); err != nil {
				return err
			}
			return step(st, 10, 80)
		})
	}
}
