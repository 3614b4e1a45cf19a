package attention

import (
	"context"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
)

// TestScratchBytes compares what a call holds with what was said before.
func TestScratchBytes(t *testing.T) {
	for _, precision := range precisions {
		scratchBytesOf(t, precision)
	}
}

func scratchBytesOf(t *testing.T, precision asm.Precision) {
	for _, shape := range [][2]int{{1, 1}, {10, 700}, {700, 700}, {9000, 60}} {
		for _, tight := range []bool{false, true} {
			a := must(t, Config{Heads: 4, KVHeads: 2, HeadDim: 24, ValueDim: 5, Causal: true, Workers: 3, Precision: precision})
			a.sizes.Alone = 1
			if tight {
				a.sizes.Pack = 2 * a.slot().size
			}
			q, k, v, dst := matrix(1, shape[0], 96), matrix(2, shape[1], 48), matrix(3, shape[1], 10), matrix(4, shape[0], 20)
			if err := a.Forward(dst, q, k, v); err != nil {
				t.Fatal(err)
			}
			held := isatest.Held(a.forwards.Get())
			if said := a.ScratchBytes(shape[0], shape[1]); held > said || held < said/3 {
				t.Errorf("%v, %d queries, %d keys: %d bytes, said %d", precision, shape[0], shape[1], held, said)
			}
		}
	}
}

// TestStepScratchBytes does so for steps.
func TestStepScratchBytes(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, width := range []int{24, 64} {
			for _, shape := range [][2]int{{1, 1}, {1, 900}, {1, 9000}, {3, 5000}, {200, 700}} {
				a := must(t, Config{Heads: 4, KVHeads: 2, HeadDim: width, Causal: true, Workers: 3})
				a.sizes.Alone = 1
				s, err := a.NewState(StateConfig{})
				if err != nil {
					t.Fatal(err)
				}
				n, before := shape[0], shape[1]-shape[0]
				if before > 0 {
					k := matrix(1, before, 2*width)
					if err := s.Append(k, k); err != nil {
						t.Fatal(err)
					}
				}
				n = min(n, shape[1])
				q, k, dst := matrix(2, n, 4*width), matrix(3, n, 2*width), mat.New(n, 4*width)
				if err := a.Step(dst, q, k, k, s); err != nil {
					t.Fatal(err)
				}
				held := isatest.Held(a.steps.Get())
				if said := a.StepScratchBytes(n, shape[1]); held > said || held < said/8 {
					t.Errorf("%d tokens, %d keys of %d: %d bytes, said %d", n, shape[1], width, held, said)
				}
			}
		}
	})
}

// TestStepScratchBytesMore does so for steps in Forward's tiles, and for rows of Int8 that stand turned.
func TestStepScratchBytesMore(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, n := range []int{1, 30, 300} {
			for _, prefill := range []bool{false, true} {
				a := must(t, Config{Heads: 4, KVHeads: 2, HeadDim: 64, Causal: true, Workers: 3})
				a.sizes.Alone = 1
				s, err := a.NewState(StateConfig{Format: asm.Int8})
				if err != nil {
					t.Fatal(err)
				}
				const before = 1500
				k := matrix(1, before, 128)
				for i := 5; i < len(k.Data); i += 64 {
					k.Data[i] += 300 // which is turned
				}
				if err := s.Append(k, k); err != nil {
					t.Fatal(err)
				}
				k = mat.Rows(k, 0, n)
				q, dst := matrix(2, n, 256), mat.New(n, 256)
				if err := a.Run(t.Context(), &Call{Dst: dst, Q: q, K: []blas32.General{k}, V: []blas32.General{k}, State: s, Prefill: prefill}); err != nil {
					t.Fatal(err)
				}
				held := isatest.Held(a.steps.Get())
				said := a.StepScratchBytes(n, before+n) + a.TurnedScratchBytes(n, before+n)
				if prefill {
					said += a.PrefillScratchBytes(n, before+n)
				}
				if held > said || held < said/12 {
					t.Errorf("%d tokens, prefill %v: %d bytes, said %d", n, prefill, held, said)
				}
			}
		}
	})
}

func TestAllocations(t *testing.T) {
	inPrecisions(t, func(t *testing.T, precision asm.Precision) {
		for _, workers := range []int{1, 4} {
			a := must(t, Config{Heads: 4, KVHeads: 2, HeadDim: 16, Causal: true, Workers: workers, Bias: alibi{1, 1, 1, 1}, Sinks: random(1, 4), Softcap: 9, Skip: 1e-4, Precision: precision})
			a.sizes.Alone = 1
			n := 300
			if precision != asm.Single && precision.Unit() == "none" {
				n = 40 // slow
			}
			q, k, v, dst := matrix(1, n, 64), matrix(2, n, 32), matrix(3, n, 32), matrix(4, n, 64)
			a.Forward(dst, q, k, v)
			if x := isatest.Allocations(func() { a.Forward(dst, q, k, v) }); x != 0 {
				t.Errorf("%d workers: %v allocations a call", workers, x)
			}
			c := &Call{Q: q, K: []blas32.General{k}, V: []blas32.General{v}, Extra: []Extra{{K: []blas32.General{k}, V: []blas32.General{v}, Offsets: []int{0, n / 4, n}}},
				Offsets: []int{0, n / 3, n}, LogWeights: matrix(5, n, 1), Visible: func(q int64) (int64, int64) { return 0, q }}
			outputs(a, c)
			a.Run(context.Background(), c)
			if x := isatest.Allocations(func() { a.Run(context.Background(), c) }); x != 0 {
				t.Errorf("%d workers, all options: %v allocations a call", workers, x)
			}
		}
	})
}
