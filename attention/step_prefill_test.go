package attention

import (
	"context"
	"fmt"
	"math"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/tile"
	"github.com/subquad/subquad/rope"
)

// TestPrefill compares steps in Forward's tiles with steps in those of decoding, for operators and
// states of every kind, one sequence and a batch, and their bits for any Workers.
func TestPrefill(t *testing.T) {
	sinks := []float32{0.5, -1, 2, 0}
	isatest.Run(t, func(t *testing.T) {
		for _, small := range []bool{false, true} {
			if small {
				defer tile.Small()()
			}
			for name, cfg := range map[string]Config{
				"plain": {}, "window": {Window: 40}, "sinks": {Sinks: sinks}, "softcap": {Softcap: 3}, "multi-query": {KVHeads: 1}, "values": {ValueDim: 8}, "precision": {Precision: asm.BFloat16x6},
			} {
				cfg.Heads, cfg.HeadDim, cfg.Causal = 4, 16, true
				if cfg.KVHeads == 0 {
					cfg.KVHeads = 2
				}
				a, err := New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				pages, err := a.NewPages(PagesConfig{PageTokens: 24})
				if err != nil {
					t.Fatal(err)
				}
				for what, sc := range map[string]StateConfig{
					"plain": {}, "bfloat16": {Format: asm.BFloat16}, "int8": {Format: asm.Int8}, "paged": {Pages: pages}, "ring": {Window: 30}, "kept": {Window: 30, Keep: 3},
					"turned": {Rotation: &rope.Config{HeadDim: 16}}, "each step": {Rotation: &rope.Config{HeadDim: 16}, Policy: rope.EachStep}, "weights": {LogWeights: true},
				} {
					prefillOf(t, fmt.Sprintf("%s, %s, small %v", name, what, small), a, sc)
				}
			}
		}
	})
}

func prefillOf(t *testing.T, what string, a *Attention, sc StateConfig) {
	t.Helper()
	cfg := a.Config()
	const n = 150
	q, k, v := matrix(1, n, cfg.Heads*cfg.HeadDim), matrix(2, n, cfg.KVHeads*cfg.HeadDim), matrix(3, n, cfg.KVHeads*cfg.ValueDim)
	w := matrix(4, n, 1)
	steps := []int{20, 21, 90, 105, n}
	run := func(prefill bool, workers int, states []*State, from, to int) (dst, lse blas32.General) {
		t.Helper()
		rows := len(states) * (to - from)
		dst, lse = general(make([]float32, rows*cfg.Heads*cfg.ValueDim), rows, cfg.Heads*cfg.ValueDim), general(make([]float32, rows*cfg.Heads), rows, cfg.Heads)
		call := &Call{Dst: dst, Q: times(q, len(states), from, to), K: []blas32.General{times(k, len(states), from, to)}, V: []blas32.General{times(v, len(states), from, to)}, LSE: lse, Prefill: prefill, Workers: workers, Offsets: []int{0}}
		for i, s := range states {
			call.States, call.Offsets = append(call.States, s), append(call.Offsets, (i+1)*(to-from))
		}
		if sc.LogWeights {
			call.LogWeights = times(w, len(states), from, to)
		}
		if err := a.Run(context.Background(), call); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		return dst, lse
	}
	var states [5]*State
	for i := range states {
		s, err := a.NewState(sc)
		if err != nil {
			t.Fatal(err)
		}
		states[i] = s
	}
	from := 0
	for _, to := range steps {
		want, wantLSE := run(false, 1, states[:1], from, to)
		got, lse := run(true, 1, states[1:2], from, to)
		for _, x := range [...][2]blas32.General{{got, want}, {lse, wantLSE}} {
			for i, y := range x[1].Data {
				if d := math.Abs(float64(x[0].Data[i] - y)); !(d <= 2e-5) {
					t.Fatalf("%s, tokens %d to %d: element %d is %v, want %v", what, from, to, i, x[0].Data[i], y)
				}
			}
		}
		four, _ := run(true, 4, states[2:3], from, to)
		two, _ := run(true, 2, states[3:5], from, to)
		for i, y := range got.Data {
			if four.Data[i] != y || two.Data[len(got.Data)+i] != y {
				t.Fatalf("%s, tokens %d to %d: other bits of 4 workers, or in a batch", what, from, to)
			}
		}
		from = to
	}
	for _, s := range states {
		s.Reset()
	}
}

// times returns rows of x several times.
func times(x blas32.General, n, from, to int) blas32.General {
	y := general(nil, 0, x.Cols)
	for range n {
		y.Data = append(y.Data, mat.Rows(x, from, to).Data[:(to-from)*x.Cols]...)
	}
	y.Rows = n * (to - from)
	return y
}

// TestPrefillMemory: a step in Forward's tiles allocates nothing, and ends with its context.
func TestPrefillMemory(t *testing.T) {
	a, err := New(Config{Heads: 4, HeadDim: 32, Causal: true})
	if err != nil {
		t.Fatal(err)
	}
	const n = 200
	s, err := a.NewState(StateConfig{MaxTokens: n})
	if err != nil {
		t.Fatal(err)
	}
	x, dst := matrix(1, n, 128), matrix(2, n, 128)
	call := &Call{Dst: dst, Q: x, K: []blas32.General{x}, V: []blas32.General{x}, State: s, Prefill: true, Workers: 4}
	step := func() {
		s.Reset()
		if err := a.Run(t.Context(), call); err != nil {
			t.Fatal(err)
		}
	}
	step()
	if got := testing.AllocsPerRun(5, step); got > 0 {
		t.Errorf("%v allocations", got)
	}
	s.Reset()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Run(ctx, call); err != context.Canceled || s.Len() != 0 {
		t.Errorf("error %v and %d tokens after the end of the context", err, s.Len())
	}
}
