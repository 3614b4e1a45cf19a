package hyena

import (
	"io"
	"testing"

	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state/statetest"
)

// TestHostileFiles reads files of states of every operator that another program has changed.
func TestHostileFiles(t *testing.T) {
	shrinkNear(t, 64)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	const d = 2
	modes := randomModes(t, 4, d, 3)
	modal, err := NewModal(ModalConfig{Modes: modes, Workers: 1})
	must(err)
	gated, err := NewGated(GatedConfig{Dim: d, Workers: 1}, GatedWeights{Short: matrix(2, 3*d, 3, 0), Modes: modes})
	must(err)
	s4d, err := NewS4D(S4DConfig{Workers: 1}, S4DLayerWeights{Modes: modes, Out: matrix(3, 2*d, d, 0)})
	must(err)
	for _, x := range []struct {
		op       streamer
		in, seen int
	}{
		{mustConv(t, ConvConfig{Kernel: quiet(1, 3, d), Workers: 1}), d, 9},
		{mustConv(t, ConvConfig{Kernel: quiet(1, 200, d), Workers: 1}), d, 130},
		{mustOperator(t, OperatorConfig{Dim: d, Order: 3, Workers: 1}, testWeights(t, d, 3, 3, 300)), d, 99},
		{modal, d, 9}, {gated, 3 * d, 9}, {s4d, d, 9},
	} {
		st, in := mustState(t, x.op, StateConfig{}), matrix(5, x.seen+71, x.in, 0)
		step := func(st *State, from, to int) error {
			return x.op.Step(mat.New(to-from, d), mat.Rows(in, from, to), st)
		}
		must(step(st, 0, x.seen))
		statetest.Mutate(t, st, x.op.ReadState, func(st *State) error {
			if err := step(st, x.seen, x.seen+1); err != nil {
				return err
			}
			return step(st, x.seen+1, in.Rows)
		})
	}
	h3, err := NewH3(H3Config{Heads: d, Workers: 1}, H3Weights{Shift: quiet(1, 4, d), Kernel: quiet(2, 60, d), Skip: random(3, d)})
	must(err)
	decimate, err := NewDecimate(DecimateConfig{Kernel: quiet(1, 9, d), Factor: 3})
	must(err)
	x := matrix(6, 80, d, 0)
	stepH3 := func(st *State, from, to int) error {
		rows := mat.Rows(x, from, to)
		return h3.Step(mat.New(to-from, d), rows, rows, rows, st)
	}
	stepD := func(st *State, from, to int) error {
		return decimate.Step(mat.New(decimate.Outputs(st.Len(), to-from), d), mat.Rows(x, from, to), st)
	}
	for _, op := range []struct {
		streamer interface {
			NewState(StateConfig) (*State, error)
		}
		read func(io.Reader) (*State, error)
		step func(st *State, from, to int) error
	}{{h3, h3.ReadState, stepH3}, {decimate, decimate.ReadState, stepD}} {
		st := mustState(t, op.streamer, StateConfig{})
		must(op.step(st, 0, 20))
		statetest.Mutate(t, st, op.read, func(st *State) error {
			if err := op.step(st, 20, 21); err != nil {
				return err
			}
			return op.step(st, 21, 80)
		})
	}
	for _, cfg := range []PartitionConfig{{Kernel: quiet(1, 20, 1), Block: 16, Largest: 16}, {Kernel: quiet(1, 300, 1), Block: 16, Largest: 64}} {
		p := mustPartition(t, cfg)
		st, err := p.NewState()
		must(err)
		x := matrix(2, 300, 1, 0)
		must(p.Step(x, x, st))
		statetest.Mutate(t, st, p.ReadState, func(st *PartitionState) error {
			if err := p.Step(mat.New(1, 1), mat.Rows(x, 0, 1), st); err != nil {
				return err
			}
			return p.Step(mat.New(200, 1), mat.Rows(x, 1, 201), st)
		})
	}
}
