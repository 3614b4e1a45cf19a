package attention

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/rope"
)

// smallSteps shrinks what is cut, so that small tests cross every edge.
func smallSteps(a *Attention) {
	a.sizes.StepTile, a.sizes.StepKeys, a.sizes.StepRows, a.sizes.StepBytes, a.sizes.Alone = 8, 24, 3*a.cfg.Heads, 64, 100
}

// formats and the errors they may add to outputs of values of size 1.
var formats = map[asm.Format]float64{asm.Float32: 3e-6, asm.Float16: 3e-3, asm.BFloat16: 3e-2, asm.Int8: 5e-2}

// inSteps gives a sequence to a state in steps.
func inSteps(t *testing.T, a *Attention, s *State, q, k, v blas32.General, steps []int) blas32.General {
	t.Helper()
	dst := blank(q.Rows, a.cfg.Heads*a.cfg.ValueDim)
	from := 0
	for _, n := range steps {
		if err := a.Step(part(dst, from, from+n), part(q, from, from+n), part(k, from, from+n), part(v, from, from+n), s); err != nil {
			t.Fatal(err)
		}
		from += n
	}
	return dst
}

func blank(rows, cols int) blas32.General {
	m := general(make([]float32, rows*cols), rows, cols)
	for i := range m.Data {
		m.Data[i] = float32(math.NaN())
	}
	return m
}

func randomSteps(r *rand.Rand, n int) (steps []int) {
	for n > 0 {
		s := min(n, [...]int{0, 1, 1, 1, 2, 5, 30, 70}[r.IntN(8)])
		steps, n = append(steps, s), n-s
	}
	return steps
}

// exact is what Forward gives, with the first keep keys seen by all.
func exact(t *testing.T, a *Attention, q, k, v blas32.General, window, keep int) blas32.General {
	t.Helper()
	c := &Call{Dst: blank(q.Rows, a.cfg.Heads*a.cfg.ValueDim), Q: q, K: []blas32.General{k}, V: []blas32.General{v}}
	if window > 0 {
		seen := make([]bool, q.Rows*k.Rows)
		for i := range q.Rows {
			for j := range k.Rows {
				seen[i*k.Rows+j] = j < keep || j > i-window
			}
		}
		c.Mask = MatrixMask{q.Rows, k.Rows, seen}
	}
	if err := a.Run(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	return c.Dst
}

// TestStepIsForward cuts sequences into steps at random, for every kind of cache,
// storage and option.
func TestStepIsForward(t *testing.T) {
	rotation := &rope.Config{HeadDim: 16}
	isatest.Run(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(5, 6))
		trials := 60
		if testing.Short() {
			trials = 15
		}
		for trial := range trials {
			cfg := Config{Heads: 4, KVHeads: [...]int{4, 2, 1}[trial%3], HeadDim: 16, ValueDim: [...]int{16, 32, 11}[r.IntN(3)], Causal: true, Workers: 1 + trial%3}
			switch r.IntN(5) {
			case 0:
				cfg.Window = 40
			case 1:
				cfg.Sinks, cfg.Softcap = random(3, 4), 4
			case 2:
				cfg.Bias = alibi{0.1, 0.2, 0.05, 1}
			case 3:
				cfg.ReLU = true
			}
			state := StateConfig{Format: asm.Format(r.IntN(len(formats)))}
			kind := [...]string{"growing", "bounded", "ring", "paged"}[r.IntN(4)]
			n := 150
			a := must(t, cfg)
			smallSteps(a)
			switch kind {
			case "bounded":
				state.MaxTokens = n
			case "ring":
				state.Window, state.Keep = 1+r.IntN(60), r.IntN(9)
				if cfg.Window > 0 {
					state.Keep = 0
				}
			}
			turned := cfg.Bias == nil && r.IntN(3) == 0
			if turned {
				state.Rotation = rotation
				if r.IntN(2) == 0 {
					state.Policy = rope.EachStep
				}
			}
			if kind == "paged" {
				pages, err := a.NewPages(PagesConfig{PageTokens: 1 + r.IntN(20), Format: state.Format})
				if err != nil {
					t.Fatal(err)
				}
				state.Pages = pages
			}
			if cfg.ReLU && state.Window > 0 {
				continue // a mask does not count as a range does
			}
			q, k, v := matrix(1, n, 4*16), matrix(2, n, a.cfg.KVHeads*16), matrix(3, n, a.cfg.KVHeads*a.cfg.ValueDim)
			s, err := a.NewState(state)
			if err != nil {
				t.Fatal(err)
			}
			steps := randomSteps(r, n)
			got := inSteps(t, a, s, q, k, v, steps)
			if s.Len() != n {
				t.Fatalf("%d tokens, want %d", s.Len(), n)
			}
			if turned {
				rot, err := rope.New(*rotation)
				if err != nil {
					t.Fatal(err)
				}
				for _, m := range []blas32.General{q, k} {
					if err := rot.Rotate(m, 0); err != nil {
						t.Fatal(err)
					}
				}
			}
			want := exact(t, a, q, k, v, state.Window, state.Keep)
			tol := formats[state.Format]
			if cfg.ReLU {
				tol *= 3
			}
			close64(t, fmt.Sprintf("%s %+v, %+v, steps %v", kind, cfg, state, steps), got.Data, want.Data, tol)
		}
	})
}
