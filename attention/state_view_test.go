package attention

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
)

// TestView has a step attend to keys and values in the caller's buffer as it does to
// those of a state, from any position on, and copies of the view go their own way.
func TestView(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		a := must(t, Config{Heads: 4, KVHeads: 2, HeadDim: 16, Causal: true, Window: 40, Bias: alibi{.1, .2, .3, .4}})
		smallSteps(a)
		const n, first = 60, 11
		fused := matrix(1, n, 64+3) // keys, values and a gap
		k, v := mat.Columns(fused, 0, 32), mat.Columns(fused, 32, 32)
		q := matrix(2, 3, 64)
		s := newState(t, a, StateConfig{})
		if err := s.Skip(first); err != nil {
			t.Fatal(err)
		}
		if err := s.Append(k, v); err != nil {
			t.Fatal(err)
		}
		attend := func(s *State) []float32 {
			c := &Call{State: s, Dst: blank(3, 64), Q: q}
			if err := a.Run(context.Background(), c); err != nil {
				t.Fatal(err)
			}
			return c.Dst.Data
		}
		want := attend(s)
		var view View
		x, err := view.Of(a, k, v, first)
		if err != nil {
			t.Fatal(err)
		}
		sameBits(t, "in place", attend(x), want)
		sameBits(t, "a clone", attend(x.Clone()), want)
		var file bytes.Buffer
		if _, err := x.WriteTo(&file); err != nil {
			t.Fatal(err)
		}
		back, err := a.ReadState(&file)
		if err != nil {
			t.Fatal(err)
		}
		sameBits(t, "read back", attend(back), want)
		if x.Len() != first+n || x.Held() != n {
			t.Errorf("%d of %d tokens", x.Held(), x.Len())
		}
		dst := mat.New(1, 64)
		if err := a.Step(dst, part(q, 0, 1), part(k, 0, 1), part(v, 0, 1), x); !errors.Is(err, ErrFull) {
			t.Errorf("a view takes up a token: %v", err)
		}
		if y := isatest.Allocations(func() {
			if _, err := view.Of(a, k, v, first); err != nil {
				t.Fatal(err)
			}
		}); y != 0 {
			t.Errorf("%v allocations", y)
		}
	})
	a := must(t, stateOp)
	var view View
	good := mat.New(3, 32)
	for _, c := range []struct {
		kind  error
		k, v  blas32.General
		first int64
	}{{ErrShape, mat.New(3, 31), good, 0}, {ErrShape, good, mat.New(2, 32), 0}, {ErrCall, good, good, -1}, {ErrCall, good, good, MaxPosition + 1}} {
		if _, err := view.Of(a, c.k, c.v, c.first); !errors.Is(err, c.kind) {
			t.Errorf("error %v, want %v", err, c.kind)
		}
	}
}
