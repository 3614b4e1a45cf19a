package hyena

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state/statetest"
)

// TestOperatorStates: any split of a sequence gives what Forward gives, and all splits the
// same bits.
func TestOperatorStates(t *testing.T) {
	shrinkNear(t, 64)
	isatest.Run(t, func(t *testing.T) {
		for _, s := range []struct{ tokens, dim, order, taps int }{{1, 1, 2, 1}, {500, 17, 2, 3}, {700, 6, 3, 4}, {300, 5, 4, 2}} {
			name := fmt.Sprint(s)
			w := testWeights(t, s.dim, s.order, s.taps, s.tokens+7)
			op := mustOperator(t, OperatorConfig{Dim: s.dim, Order: s.order, Workers: 2, Activation: Activation(s.order % 3)}, w)
			x := matrix(3, s.tokens, s.dim, 2)
			got := statesAgree(t, op, x, s.dim)
			whole := mat.New(s.tokens, s.dim)
			if err := op.Forward(whole, x); err != nil {
				t.Fatal(err)
			}
			near(t, name, got, whole, 2e-5)
			// A prompt at once, then token by token.
			st := mustState(t, op, StateConfig{MaxTokens: s.tokens})
			n := s.tokens * 2 / 3
			again := mat.New(s.tokens, s.dim)
			for from := 0; from < s.tokens; {
				to := max(n, from+1)
				if err := op.Step(mat.Rows(again, from, to), mat.Rows(x, from, to), st); err != nil {
					t.Fatal(err)
				}
				from = to
			}
			near(t, name+" prompt", again, whole, 2e-5)
		}
	})
}

// TestOperatorCancel: a step that is cancelled leaves the state as it was.
func TestOperatorCancel(t *testing.T) {
	shrinkNear(t, 64)
	op, x := mustOperator(t, OperatorConfig{Dim: 6, Order: 3, Workers: 1}, testWeights(t, 6, 3, 3, 900)), matrix(3, 900, 6, 0)
	want, _ := split(t, rand.New(rand.NewPCG(1, 2)), op, x, 6, mustState(t, op, StateConfig{}))
	for left := 1; left < 80; left += 5 {
		st := mustState(t, op, StateConfig{})
		split(t, rand.New(rand.NewPCG(1, 2)), op, mat.Rows(x, 0, 300), 6, st)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		if err := op.Run(&statetest.Ending{Context: ctx, Left: left}, &OperatorCall{Dst: mat.New(500, 6), X: mat.Rows(x, 300, 800), State: st}); err != nil && (err != context.Canceled || st.Len() != 300) {
			t.Fatalf("error %v, Len %d", err, st.Len())
		}
		from := st.Len()
		got, _ := split(t, rand.New(rand.NewPCG(1, 3)), op, mat.Rows(x, from, 900), 6, st)
		for i := range got.Rows {
			if !slices.Equal(mat.Row(got, i), mat.Row(want, from+i)) {
				t.Fatalf("after %d looks: other bits at token %d", left, from+i)
			}
		}
	}
}

// TestTokenCancel: a step of one token, which may compute a long filter, can be stopped.
func TestTokenCancel(t *testing.T) {
	shrinkNear(t, 64)
	op, x := mustOperator(t, OperatorConfig{Dim: 6, Order: 3, Workers: 1}, testWeights(t, 6, 3, 3, 400)), matrix(3, 400, 6, 0)
	want, _ := split(t, rand.New(rand.NewPCG(1, 2)), op, x, 6, mustState(t, op, StateConfig{}))
	st, got := mustState(t, op, StateConfig{}), mat.New(400, 6)
	stops := 0
	for i := range 400 {
		for _, left := range []int{1 + i%5, 1 << 30} {
			if st.Len() > i {
				break
			}
			err := op.Run(&statetest.Ending{Context: t.Context(), Left: left}, &OperatorCall{Dst: mat.Rows(got, i, i+1), X: mat.Rows(x, i, i+1), State: st})
			if err != nil && (err != context.Canceled || st.Len() != i) {
				t.Fatalf("token %d: error %v, Len %d", i, err, st.Len())
			}
			if err != nil {
				stops++
			}
		}
	}
	if stops < 200 {
		t.Errorf("%d stops of 400 tokens", stops)
	}
	if !slices.Equal(got.Data, want.Data) {
		t.Error("other bits")
	}
}

// TestStepAllocations: after the first steps none of them allocates.
func TestStepAllocations(t *testing.T) {
	shrinkNear(t, 64)
	isatest.Run(t, func(t *testing.T) {
		modes := randomModes(t, 5, 20, 4)
		modal, err := NewModal(ModalConfig{Modes: modes, Workers: 4})
		if err != nil {
			t.Fatal(err)
		}
		gated, err := NewGated(GatedConfig{Dim: 20, Workers: 4}, GatedWeights{Short: matrix(6, 60, 3, 0), Modes: modes})
		if err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			op   streamer
			wide int
		}{
			"Conv":     {mustConv(t, ConvConfig{Kernel: matrix(1, 3000, 20, 0), Workers: 4}), 20},
			"Operator": {mustOperator(t, OperatorConfig{Dim: 20, Workers: 4}, testWeights(t, 20, 2, 3, 3000)), 20},
			"Modal":    {modal, 20},
			"Gated":    {gated, 60},
		} {
			x, dst := matrix(3, 64, c.wide, 0), mat.New(64, 20)
			st := mustState(t, c.op, StateConfig{MaxTokens: 3000, Snapshots: 2})
			for i := range 60 {
				if i == 40 { // all sizes of tiles have been used
					st.Reset()
				}
				if err := c.op.Step(dst, x, st); err != nil {
					t.Fatal(err)
				}
			}
			for _, n := range []int{1, 64} {
				if a := isatest.Allocations(func() { c.op.Step(mat.Rows(dst, 0, n), mat.Rows(x, 0, n), st) }); a != 0 {
					t.Errorf("%s: %v allocations for %d tokens", name, a, n)
				}
			}
		}
	})
}

// TestStateBytes: a state takes no more than is said before.
func TestStateBytes(t *testing.T) {
	shrinkNear(t, 64)
	op := mustOperator(t, OperatorConfig{Dim: 3, Order: 3}, testWeights(t, 3, 3, 3, 2000))
	x, dst := matrix(3, 2000, 3, 0), mat.New(2000, 3)
	for _, most := range []int{0, 2000} {
		st := mustState(t, op, StateConfig{MaxTokens: most})
		for n := range 2000 {
			if err := op.Step(mat.Rows(dst, n, n+1), mat.Rows(x, n, n+1), st); err != nil {
				t.Fatal(err)
			}
			if most > 0 && n < 1999 {
				continue // memory for all of them
			}
			if got, said := st.Bytes(), op.StateBytes(n+1); got > said || n == 1999 && got < said/3 {
				t.Fatalf("%d tokens: %d bytes, said %d", n+1, got, said)
			}
		}
	}
}

// TestOperatorBatch: sequences side by side give the bits that each gives alone.
func TestOperatorBatch(t *testing.T) {
	shrinkNear(t, 64)
	isatest.Run(t, func(t *testing.T) {
		op := mustOperator(t, OperatorConfig{Dim: 17, Order: 3, Workers: 3}, testWeights(t, 17, 3, 4, 500))
		x := matrix(3, 400, 17, 2)
		var alone, batch []*State
		for i := range 5 {
			a := mustState(t, op, StateConfig{})
			split(t, rand.New(rand.NewPCG(1, 2)), op, mat.Rows(x, 0, 67*i), 17, a)
			alone, batch = append(alone, a), append(batch, a.Clone())
		}
		for _, offsets := range [][]int{nil, {0, 40, 40, 41, 90, 120}} {
			rows := 5
			if offsets != nil {
				rows = 120
			}
			in, got := mat.Rows(x, 270, 270+rows), mat.New(rows, 17)
			if err := op.Run(context.Background(), &OperatorCall{Dst: got, X: in, Offsets: offsets, States: batch}); err != nil {
				t.Fatal(err)
			}
			for i, st := range alone {
				from, to := i, i+1
				if offsets != nil {
					from, to = offsets[i], offsets[i+1]
				}
				want := mat.New(to-from, 17)
				if err := op.Step(want, mat.Rows(in, from, to), st); err != nil {
					t.Fatal(err)
				}
				if st.Len() != batch[i].Len() || !slices.Equal(want.Data, got.Data[from*17:to*17]) {
					t.Errorf("sequence %d: other bits in a batch", i)
				}
			}
		}
	})
}
