package attention

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/rope"
)

// TestStepBits has the same bits for any number of workers, and alone as in a batch.
func TestStepBits(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const states = 5
		var want []float32
		for workers := range 5 {
			cfg := stateOp
			cfg.Workers = workers
			a := must(t, cfg)
			smallSteps(a)
			var list, alone []*State
			for i := range states {
				s := newState(t, a, StateConfig{Format: [...]asm.Format{asm.Float32, asm.Int8, asm.BFloat16}[i%3]})
				step(t, a, s, tokens(a, uint64(10*i), 37*i))
				list, alone = append(list, s), append(alone, s.Clone())
			}
			x := tokens(a, 99, states)
			dst := blank(states, 64)
			if err := a.StepBatch(dst, x.q, x.k, x.v, list); err != nil {
				t.Fatal(err)
			}
			for i, s := range alone {
				sameBits(t, "alone", step(t, a, s, x.part(i, i+1)), dst.Data[i*64:][:64])
			}
			if want == nil {
				want = dst.Data
			}
			sameBits(t, fmt.Sprint(workers, " workers"), dst.Data, want)
		}
	})
}

// TestTree compares each path of a tree with the path alone, and goes on from an
// accepted one.
func TestTree(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for name, state := range map[string]StateConfig{
			"contiguous": {}, "ring": {Window: 30, Keep: 2}, "turned": {Rotation: &rope.Config{HeadDim: 16}},
			"turned each step": {Rotation: &rope.Config{HeadDim: 16}, Policy: rope.EachStep}, "paged": {},
		} {
			cfg := stateOp
			cfg.Window = 25
			if state.Rotation == nil && state.Keep == 0 {
				cfg.Bias = alibi{0.1, 0.2, 0.3, 0.4}
			}
			a := must(t, cfg)
			smallSteps(a)
			if name == "paged" {
				state.Pages = newPages(t, a, PagesConfig{PageTokens: 5})
			}
			tree := []int{-1, 0, 0, 1, -1, 2, 2, 5}
			paths := [][]int{{0, 1, 3}, {0, 2, 5, 7}, {0, 2, 6}, {4}}
			before, x, after := tokens(a, 1, 60), tokens(a, 5, len(tree)), tokens(a, 9, 4)
			s := newState(t, a, state)
			step(t, a, s, before)
			pick := func(path []int) sequence {
				y := tokens(a, 0, len(path))
				for i, n := range path {
					copy(y.q.Data[i*y.q.Stride:][:y.q.Cols], x.q.Data[n*x.q.Stride:])
					copy(y.k.Data[i*y.k.Stride:][:y.k.Cols], x.k.Data[n*x.k.Stride:])
					copy(y.v.Data[i*y.v.Stride:][:y.v.Cols], x.v.Data[n*x.v.Stride:])
				}
				return y
			}
			dst := blank(len(tree), 64)
			if err := a.Run(context.Background(), &Call{State: s, Tree: tree, Dst: dst, Q: x.q, K: []blas32.General{x.k}, V: []blas32.General{x.v}}); err != nil {
				t.Fatal(err)
			}
			for _, path := range paths {
				alone := newState(t, a, state)
				step(t, a, alone, before)
				want := step(t, a, alone, pick(path))
				for i, n := range path {
					close64(t, fmt.Sprint(name, ", path ", path, ": node ", n), dst.Data[n*64:][:64], want[i*64:][:64], 3e-6)
				}
				accepted := s.Clone()
				if err := accepted.Accept(len(tree), path); err != nil {
					t.Fatal(err)
				}
				sameBits(t, fmt.Sprint(name, ": after ", path), step(t, a, accepted, after), step(t, a, alone, after))
			}
			for _, bad := range [][]int{{1, 0}, {0, 0}, {8}, {-1}} {
				if err := s.Accept(len(tree), bad); !errors.Is(err, ErrCall) || s.Len() != 68 {
					t.Errorf("path %v: %v", bad, err)
				}
			}
		}
	})
}

// TestStepNotFinite has values that are not finite hidden from a query: they must
// not count.
func TestStepNotFinite(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		bits := map[asm.Format][]float32{}
		for trial := range 2 * len(formats) {
			format := asm.Format(trial / 2)
			cfg := stateOp
			cfg.Window, cfg.Workers = 10, 1+3*(trial%2)
			a := must(t, cfg)
			smallSteps(a)
			x := tokens(a, 1, 60)
			want := step(t, a, newState(t, a, StateConfig{Format: format}), x)
			x.v.Data[20*x.v.Stride+3], x.v.Data[20*x.v.Stride+17] = float32(math.NaN()), float32(math.Inf(1))
			x.k.Data[20*x.k.Stride+3] = float32(math.NaN())
			got := step(t, a, newState(t, a, StateConfig{Format: format}), x)
			if trial%2 == 0 {
				bits[format] = got
			}
			sameBits(t, fmt.Sprint(format, " with more workers"), got, bits[format])
			for i := range 60 {
				row := got[i*64:][:64]
				if i >= 20 && i < 30 {
					if x := row[3]; x == x {
						t.Fatalf("%v: query %d sees NaN and gives %v", format, i, x)
					}
					continue
				}
				close64(t, fmt.Sprint(format, ", query ", i), row, want[i*64:][:64], 1e-6)
			}
		}
	})
}

func TestStepAllocations(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, workers := range []int{1, 4} {
			cfg := stateOp
			cfg.Workers = workers
			a := must(t, cfg)
			a.sizes.Alone = 100
			for name, state := range kinds(t, a) {
				if state.Rotation != nil && (workers > 1 || raceEnabled) {
					continue // package rope keeps scratch for GOMAXPROCS calls, which is 1 here
				}
				s := newState(t, a, state)
				x := tokens(a, 1, 101)
				step(t, a, s, x.part(0, 100))
				dst, one := blank(1, 64), x.part(100, 101)
				look := &Call{State: s, Dst: dst, Q: one.q, LSE: blank(1, 4), Entropy: blank(1, 4),
					Extra: []Extra{{Heads: 4, K: []blas32.General{matrix(1, 9, 64)}, V: []blas32.General{matrix(2, 9, 64)}}}}
				if n := isatest.Allocations(func() {
					if err := a.Step(dst, one.q, one.k, one.v, s); err != nil {
						t.Fatal(err)
					}
					if err := s.Truncate(100); err != nil {
						t.Fatal(err)
					}
					if err := a.Run(context.Background(), look); err != nil {
						t.Fatal(err)
					}
				}); n != 0 {
					t.Errorf("%s, %d workers: %v allocations a step", name, workers, n)
				}
			}
		}
	})
}

// TestTreeKept has nodes of a tree see those that stand where a ring keeps tokens for
// all, by their depth.
func TestTreeKept(t *testing.T) {
	a := must(t, Config{Heads: 1, HeadDim: 1, Causal: true})
	s := newState(t, a, StateConfig{Window: 1, Keep: 1})
	zero, dst := mat.New(4, 1), mat.New(4, 1)
	c := &Call{State: s, Dst: dst, Q: zero, K: []blas32.General{zero}, V: []blas32.General{general([]float32{1, 10, 100, 1000}, 4, 1)}, Tree: []int{-1, -1, 1, 2}}
	if err := a.Run(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	close64(t, "dst", dst.Data, []float32{1, 10, 55, 505}, 1e-6)
}

// TestFloat16Saturates stores what is beyond the range of float16 as its end.
func TestFloat16Saturates(t *testing.T) {
	a := must(t, Config{Heads: 1, HeadDim: 2, Causal: true})
	s := newState(t, a, StateConfig{Format: asm.Float16})
	dst, zero := mat.New(1, 2), mat.New(1, 2)
	if err := a.Step(dst, zero, zero, general([]float32{1e6, -7e4}, 1, 2), s); err != nil {
		t.Fatal(err)
	}
	close64(t, "dst", dst.Data, []float32{65504, -65504}, 0)
}

// TestVisibleExtremes has a range without ends show all keys, wherever they stand.
func TestVisibleExtremes(t *testing.T) {
	a := must(t, Config{Heads: 1, HeadDim: 1})
	for _, at := range []int64{0, -1, MaxPosition, -MaxPosition} {
		dst := mat.New(1, 1)
		c := &Call{Dst: dst, Q: mat.New(1, 1), K: []blas32.General{mat.New(3, 1)}, V: []blas32.General{general([]float32{1, 2, 3}, 3, 1)},
			KeyPos: []int64{at}, Visible: func(int64) (int64, int64) { return math.MinInt64, math.MaxInt64 }}
		if err := a.Run(context.Background(), c); err != nil {
			t.Fatal(err)
		}
		close64(t, "dst", dst.Data, []float32{2}, 1e-6)
	}
}
