package attention

import (
	"errors"
	"math"
	"testing"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
)

// TestSetValues: values that are replaced are those of a state that had them from the
// start, in every type and in pages, and forks keep their own.
func TestSetValues(t *testing.T) {
	a := must(t, Config{Heads: 4, KVHeads: 2, HeadDim: 16, Causal: true})
	x, y := tokens(a, 1, 50), tokens(a, 2, 50)
	rows := []int32{3, 4, 17, 39}
	mixed := mat.New(40, x.v.Cols)
	mat.Copy(mixed, mat.Rows(x.v, 0, 40))
	put := mat.New(len(rows), x.v.Cols)
	for i, r := range rows {
		copy(mat.Row(put, i), mat.Row(y.v, int(r)))
		copy(mat.Row(mixed, int(r)), mat.Row(y.v, int(r)))
	}
	for _, format := range []asm.Format{asm.Float32, asm.BFloat16, asm.Float16, asm.Int8} {
		for _, paged := range []bool{false, true} {
			cfg := StateConfig{Format: format}
			if paged {
				p, err := a.NewPages(PagesConfig{PageTokens: 8, Format: format, MaxPages: 12})
				if err != nil {
					t.Fatal(err)
				}
				cfg = StateConfig{Pages: p}
			}
			s, want := newState(t, a, cfg), newState(t, a, StateConfig{Format: format})
			if err := s.Append(mat.Rows(x.k, 0, 40), mat.Rows(x.v, 0, 40)); err != nil {
				t.Fatal(err)
			}
			if err := want.Append(mat.Rows(x.k, 0, 40), mixed); err != nil {
				t.Fatal(err)
			}
			fork := s.Clone()
			if err := s.SetValues(rows, put); err != nil {
				t.Fatal(err)
			}
			plain := newState(t, a, StateConfig{Format: format})
			if err := plain.Append(mat.Rows(x.k, 0, 40), mat.Rows(x.v, 0, 40)); err != nil {
				t.Fatal(err)
			}
			for _, c := range [][2]*State{{s, want}, {fork, plain}} {
				out := mat.New(2, 64)
				for i, st := range c {
					if err := a.Step(mat.Rows(out, i, i+1), mat.Rows(x.q, 40, 41), mat.Rows(x.k, 40, 41), mat.Rows(x.v, 40, 41), st); err != nil {
						t.Fatal(err)
					}
				}
				for i, v := range mat.Row(out, 1) {
					if got := mat.Row(out, 0)[i]; math.Float32bits(v) != math.Float32bits(got) {
						t.Fatalf("format %d, paged %v: output %d is %v, want %v", format, paged, i, got, v)
					}
				}
			}
			if paged { // 10 of 12 pages, so that there is none for all copies
				again, before := s.Clone(), mat.New(1, 64)
				held := [2]*State{s, again}
				if err := s.SetValues(rows, put); !errors.Is(err, ErrFull) {
					t.Fatalf("SetValues without pages: %v", err)
				}
				for _, st := range held {
					if err := a.Run(t.Context(), &Call{Dst: before, Q: mat.Rows(x.q, 41, 42), State: st}); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
	s := newState(t, a, StateConfig{})
	if err := s.Append(x.k, x.v); err != nil {
		t.Fatal(err)
	}
	shared, ring := newState(t, a, StateConfig{SharedValues: true}), newState(t, a, StateConfig{Window: 9})
	one := mat.New(1, x.v.Cols)
	for name, c := range map[string]struct {
		kind, err error
	}{
		"beyond":       {ErrCall, s.SetValues([]int32{50}, one)},
		"negative":     {ErrCall, s.SetValues([]int32{-1}, one)},
		"twice":        {ErrCall, s.SetValues([]int32{3, 3}, mat.New(2, x.v.Cols))},
		"too few":      {ErrShape, s.SetValues([]int32{3, 4}, one)},
		"SharedValues": {ErrCall, shared.SetValues(nil, mat.New(0, x.v.Cols))},
		"ring":         {ErrCall, ring.SetValues(nil, mat.New(0, x.v.Cols))},
	} {
		if !errors.Is(c.err, c.kind) {
			t.Errorf("%s: %v, want %v", name, c.err, c.kind)
		}
	}
	if err := s.SetValues(nil, mat.New(0, x.v.Cols)); err != nil {
		t.Errorf("no rows: %v", err)
	}
}
