package attention

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state/statetest"
)

// FuzzReadState reads hostile files: an error that matches ErrState, or a state
// that works.
func FuzzReadState(f *testing.F) {
	a := must(f, Config{Heads: 2, KVHeads: 1, HeadDim: 2, Causal: true})
	y := matrix(2, 9, 2)
	for _, cfg := range []StateConfig{{Format: asm.Int8}, {Window: 3, Keep: 1, Format: asm.BFloat16}, {MaxTokens: 9, LogWeights: true}, {SharedValues: true}, {SharedValues: true, Format: asm.Int8}} {
		s := newState(f, a, cfg)
		v := y
		if cfg.SharedValues {
			v = blas32.General{}
		}
		if err := s.Append(y, v); err != nil {
			f.Fatal(err)
		}
		statetest.Add(f, s)
		if cfg.Window == 0 { // with positions
			if err := s.Keep([]int32{1, 4, 5}); err != nil {
				f.Fatal(err)
			}
			statetest.Add(f, s)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := a.ReadState(statetest.Sealed(data))
		if err != nil {
			if !errors.Is(err, ErrState) {
				t.Fatalf("error %v", err)
			}
			return
		}
		v := part(y, 0, 1)
		if s.cfg.SharedValues {
			v = blas32.General{}
		}
		if err := a.Step(mat.New(1, 4), matrix(1, 1, 4), part(y, 0, 1), v, s); err != nil && !errors.Is(err, ErrFull) && !errors.Is(err, ErrCall) {
			t.Fatalf("error %v", err)
		}
	})
}

// FuzzStep gives states hostile shapes, trees and data: an error that leaves the
// state as it was, or a step.
func FuzzStep(f *testing.F) {
	f.Add(uint64(1), 3, 3, uint8(0), []byte{0, 1, 1})
	f.Add(uint64(2), 1, 1, uint8(7), []byte(nil))
	f.Add(uint64(3), 70, 0, uint8(14), []byte{3})
	f.Fuzz(func(t *testing.T, seed uint64, queries, keys int, kind uint8, tree []byte) {
		if queries > 200 || keys > 200 {
			t.Skip()
		}
		r := rand.New(rand.NewPCG(seed, 0))
		a := must(t, Config{Heads: 4, KVHeads: 2, HeadDim: 5, ValueDim: 3, Causal: true, Window: int(kind) % 3 * 4, Workers: 1 + r.IntN(3)})
		smallSteps(a)
		cfg := StateConfig{Format: asm.Format(kind % 4), LogWeights: kind&16 > 0}
		switch kind / 4 % 4 {
		case 1:
			cfg.MaxTokens = 80
		case 2:
			cfg.Window, cfg.Keep = 1+r.IntN(9), r.IntN(3)
		case 3:
			cfg.Pages = newPages(t, a, PagesConfig{PageTokens: 3, MaxPages: 20, Format: cfg.Format, LogWeights: cfg.LogWeights})
		}
		s := newState(t, a, cfg)
		make := func(rows, cols int) blas32.General {
			m := general(random(seed, max(0, rows*cols)), rows, cols)
			for i := range m.Data {
				if r.IntN(50) == 0 {
					m.Data[i] = []float32{float32(math.NaN()), float32(math.Inf(1)), 1e30, -1e30, 1e-40}[r.IntN(5)]
				}
			}
			if r.IntN(9) == 0 {
				m.Stride += r.IntN(3) - 1
			}
			return m
		}
		for range 4 {
			c := &Call{State: s, Q: make(queries, 20), Dst: make(queries, 12), K: []blas32.General{make(keys, 10)}, V: []blas32.General{make(keys, 6)}}
			if r.IntN(2) == 0 {
				for _, x := range tree {
					c.Tree = append(c.Tree, int(int8(x)))
				}
			}
			if r.IntN(3) == 0 {
				c.LogWeights = make(keys, 1+r.IntN(2))
			}
			if r.IntN(3) == 0 {
				n := r.IntN(30)
				c.Extra = []Extra{{Heads: r.IntN(4), K: []blas32.General{make(n, 10)}, V: []blas32.General{make(n, 6)},
					Visible: func(int64) (int64, int64) { return int64(seed), int64(n) }}}
			}
			before := s.Len()
			if r.IntN(3) == 0 {
				c.Mass, c.Entropy = make(before+keys, 4), make(queries, 4)
			}
			err := a.Run(context.Background(), c)
			switch {
			case err == nil && s.Len() != before+keys:
				t.Fatalf("%d tokens after %d and %d more", s.Len(), before, keys)
			case err != nil && s.Len() != before && cfg.Window == 0:
				t.Fatalf("%d tokens after %d and an error: %v", s.Len(), before, err)
			case err != nil && !errors.Is(err, ErrShape) && !errors.Is(err, ErrCall) && !errors.Is(err, ErrFull):
				t.Fatal(err)
			}
			if err == nil && c.Tree != nil {
				s.Accept(len(tree), []int{r.IntN(3)})
			}
			s.Truncate(s.Len() - r.IntN(3))
			switch r.IntN(6) {
			case 0:
				var rows []int32
				for i := range s.Held() {
					if r.IntN(3) > 0 {
						rows = append(rows, int32(i))
					}
				}
				if err := s.Keep(rows); err != nil && cfg.Window == 0 {
					t.Fatal(err)
				}
			case 1:
				if err := s.Forget(s.Len() / 2); err != nil && cfg.Window == 0 {
					t.Fatal(err)
				}
			case 2:
				s.Skip(r.IntN(4))
			}
		}
	})
}
