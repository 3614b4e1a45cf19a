package dna

import (
	"bytes"
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state/statetest"
)

// TestStates: any split of a sequence gives what the whole does; states are stored, forked,
// taken back, and batched with the same bits.
func TestStates(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		d := small
		d.order = 3
		m, r := d.random(4).model(t, d.config()), rand.New(rand.NewPCG(1, 2))
		tokens := bases(1, 300)
		whole := mat.New(300, m.cfg.Vocab)
		must(t, m.Run(t.Context(), &Call{Tokens: tokens, Logits: whole}))
		step := func(st *State, from, to int) blas32.General {
			dst := mat.New(to-from, m.cfg.Vocab)
			must(t, m.Step(dst, tokens[from:to], st))
			return dst
		}
		through := func(st *State, from int) blas32.General {
			all := mat.New(300-from, m.cfg.Vocab)
			for at := from; at < 300; {
				n := min(1+r.IntN(40)*r.IntN(2), 300-at)
				mat.Copy(mat.Rows(all, at-from, at-from+n), step(st, at, at+n))
				at += n
			}
			return all
		}
		st := newState(t, m, StateConfig{})
		got := through(st, 0)
		for i := range got.Data {
			if math.Abs(float64(got.Data[i]-whole.Data[i])) > 3e-4 {
				t.Fatalf("token %d: %v, want %v", i/got.Cols, got.Data[i], whole.Data[i])
			}
		}
		same := func(name string, st *State, from int) {
			t.Helper()
			if st.Len() != from || !slices.Equal(through(st, from).Data, mat.Rows(got, from, 300).Data[:(300-from)*got.Cols]) {
				t.Errorf("%s: other logits after %d tokens", name, from)
			}
		}
		st = newState(t, m, StateConfig{Snapshots: 2, MaxTokens: 400})
		step(st, 0, 130)
		var file bytes.Buffer
		if _, err := st.WriteTo(&file); err != nil {
			t.Fatal(err)
		}
		read, err := m.ReadState(&file)
		must(t, err)
		fork := st.Clone()
		step(st, 130, 131)
		must(t, st.Truncate(130))
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		for _, left := range []int{1, 5, 20} {
			if err := m.Run(&statetest.Ending{Context: ctx, Left: left}, &Call{Tokens: tokens[130:], State: st, Logits: mat.New(170, m.cfg.Vocab)}); err != context.Canceled {
				t.Errorf("error %v", err)
			}
		}
		// One token of many states.
		states := []*State{fork.Clone(), newState(t, m, StateConfig{}), fork.Clone()}
		logits := mat.New(3, m.cfg.Vocab)
		must(t, m.StepBatch(logits, []int32{tokens[130], tokens[0], tokens[130]}, states))
		if !slices.Equal(mat.Row(logits, 2), mat.Row(got, 130)) || !slices.Equal(mat.Row(logits, 1), mat.Row(got, 0)) {
			t.Error("a batch gives other bits")
		}
		same("stored", read, 130)
		same("forked", fork, 130)
		same("taken back", st, 130)
		same("batched", states[2], 131)
	})
}

func newState(t testing.TB, m *Model, cfg StateConfig) *State {
	t.Helper()
	st, err := m.NewState(cfg)
	must(t, err)
	return st
}
