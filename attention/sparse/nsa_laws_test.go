package sparse

import (
	"bytes"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/mat/mattest"
	"github.com/subquad/subquad/internal/tile"
)

// split runs a case in random steps, between which the state is copied, written and read,
// or goes back and forth.
func (x *nsaCase) split(t *testing.T, r *rand.Rand, cfg NSAStateConfig) (*attention.Call, *NSAOptions) {
	t.Helper()
	c, o := x.call()
	s := mustNSAState(t, x.a, cfg)
	step := func(from, to int) {
		if err := x.a.Run(context.Background(), nsaPart(c, from, to, s)); err != nil {
			t.Fatal(err)
		}
		if s.Len() != to {
			t.Fatalf("%d tokens, want %d", s.Len(), to)
		}
	}
	for at := 0; at < x.q.Rows; {
		to := min(at+1+r.IntN([]int{1, 5, 40}[r.IntN(3)]), x.q.Rows)
		step(at, to)
		switch r.IntN(5) {
		case 0:
			s = s.Clone()
		case 1:
			var file bytes.Buffer
			if _, err := s.WriteTo(&file); err != nil {
				t.Fatal(err)
			}
			var err error
			if s, err = x.a.ReadState(&file); err != nil {
				t.Fatal(err)
			}
		case 2:
			to = r.IntN(to + 1)
			if err := s.Truncate(to); err != nil {
				t.Fatal(err)
			}
		case 3:
			if r.IntN(4) == 0 {
				s.Reset()
				to = 0
			}
		}
		at = to
	}
	return c, o
}

// TestNSASteps has any split of a sequence give what Forward gives.
func TestNSASteps(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for seed := range uint64(40) {
			x, r := randomNSA(t, seed, 120)
			want, chosen := x.call()
			if err := x.a.Run(context.Background(), want); err != nil {
				t.Fatal(err)
			}
			cfg := NSAStateConfig{}
			switch r.IntN(3) {
			case 0:
				cfg.MaxTokens = max(x.q.Rows, 1)
			case 1:
				var err error
				if cfg.Pages, err = x.a.NewPages(attention.PagesConfig{PageTokens: 1 + r.IntN(9)}); err != nil {
					t.Fatal(err)
				}
			}
			got, o := x.split(t, r, cfg)
			for i, b := range chosen.Blocks {
				if o.Blocks[i] != b {
					t.Fatalf("seed %d: choice %d is %d, want %d", seed, i, o.Blocks[i], b)
				}
			}
			mattest.Close(t, "steps", got.Dst.Data, want.Dst.Data, 3e-5)
		}
	})
}

// TestNSAFormats has any split give what one step gives, whatever the format: what is
// chosen depends on tokens as they are stored.
func TestNSAFormats(t *testing.T) {
	for format, tolerance := range map[asm.Format]float64{asm.Float16: 1e-2, asm.BFloat16: 1e-1, asm.Int8: 1e-1} {
		for seed := range uint64(8) {
			x, r := randomNSA(t, seed, 120)
			a, _ := x.call()
			s := mustNSAState(t, x.a, NSAStateConfig{Format: format})
			if err := x.a.Run(context.Background(), nsaPart(a, 0, x.q.Rows, s)); err != nil {
				t.Fatal(err)
			}
			b, _ := x.split(t, r, NSAStateConfig{Format: format})
			mattest.Close(t, "steps of "+format.String(), b.Dst.Data, a.Dst.Data, 3e-5)
			all := x.a.cfg
			all.TopK = 1 << 10 // all blocks, so that no rounding chooses others
			x.a = mustNSA(t, all)
			c, _ := x.call()
			if err := x.a.Run(context.Background(), c); err != nil {
				t.Fatal(err)
			}
			a, _ = x.split(t, r, NSAStateConfig{Format: format})
			mattest.NearLargest(t, "all blocks of "+format.String(), a.Dst.Data, c.Dst.Data, tolerance)
		}
	}
}

// TestNSABatch has sequences in one call be what each is alone, with states and without,
// for any number of workers.
func TestNSABatch(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for seed := range uint64(20) {
			x, r := randomNSA(t, seed, 90)
			n := x.q.Rows
			offsets := []int{0}
			for at := 0; at < n; {
				at = min(at+r.IntN([]int{4, 60}[r.IntN(2)]), n)
				offsets = append(offsets, at)
			}
			if n == 0 {
				offsets = []int{0, 0}
			}
			for _, stateful := range []bool{false, true} {
				want, chosen := x.call()
				got, o := x.call()
				got.Offsets, got.Workers, want.Workers = offsets, 1+r.IntN(4), 1+r.IntN(4)
				for b, from := range offsets[:len(offsets)-1] {
					part := nsaPart(want, from, offsets[b+1], mustNSAState(t, x.a, NSAStateConfig{}))
					if !stateful {
						part.State = nil
					} else {
						got.States = append(got.States, mustNSAState(t, x.a, NSAStateConfig{}))
					}
					if err := x.a.Run(context.Background(), part); err != nil {
						t.Fatal(err)
					}
				}
				if err := x.a.Run(context.Background(), got); err != nil {
					t.Fatal(err)
				}
				mattest.SameBits(t, "batch", got.Dst.Data, want.Dst.Data)
				for i, b := range chosen.Blocks {
					if o.Blocks[i] != b {
						t.Fatalf("choice %d is %d, want %d", i, o.Blocks[i], b)
					}
				}
			}
		}
	})
}

// TestNSAStepBatch has StepBatch be Step of each state, to the bit.
func TestNSAStepBatch(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const batch, d, heads = 4, 5, 4
		a := mustNSA(t, NSAConfig{Heads: heads, KVHeads: 2, HeadDim: d, Block: 3, TopK: 2, Window: 4})
		gate := func(n int) Gates {
			return Gates{mattest.Matrix(5, n, heads), mattest.Matrix(6, n, heads), mattest.Matrix(7, n, heads)}
		}
		var alone, together []*NSAState
		for b := range batch {
			s, n := mustNSAState(t, a, NSAStateConfig{}), 5*b
			k := mattest.Matrix(uint64(b), n, 2*d)
			if err := a.Step(mat.New(n, heads*d), mattest.Matrix(9, n, heads*d), k, k, gate(n), s); err != nil {
				t.Fatal(err)
			}
			alone, together = append(alone, s), append(together, s.Clone())
		}
		for round := range uint64(8) {
			q, k, v, g := mattest.Matrix(round, batch, heads*d), mattest.Matrix(round+20, batch, 2*d), mattest.Matrix(round+30, batch, 2*d), gate(batch)
			want, got := mat.New(batch, heads*d), mat.New(batch, heads*d)
			for b := range batch {
				one := func(m blas32.General) blas32.General { return mat.Rows(m, b, b+1) }
				if err := a.Step(one(want), one(q), one(k), one(v), Gates{one(g.Compressed), one(g.Selected), one(g.Window)}, alone[b]); err != nil {
					t.Fatal(err)
				}
			}
			if err := a.StepBatch(got, q, k, v, g, together); err != nil {
				t.Fatal(err)
			}
			mattest.SameBits(t, "StepBatch", got.Data, want.Data)
		}
		if err := a.StepBatch(mat.New(1, heads*d), mat.New(1, heads*d), mat.New(1, 2*d), mat.New(1, 2*d), gate(1), nil); !errors.Is(err, ErrCall) {
			t.Errorf("error %v without states", err)
		}
	})
}

// TestNSANaN has NaN and Inf reach the queries that see them and no others.
func TestNSANaN(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for seed := range uint64(12) {
			x, r := randomNSA(t, seed, 80)
			n := x.q.Rows
			if n == 0 {
				continue
			}
			end := tile.Small()
			x.a = mustNSA(t, x.a.cfg)
			end()
			at := r.IntN(n)
			for _, m := range []blas32.General{x.k, x.v} {
				for i := at; i < n; i++ {
					mat.Row(m, i)[r.IntN(m.Cols)] = []float32{float32(math.NaN()), float32(math.Inf(1))}[r.IntN(2)]
				}
			}
			c, _ := x.call()
			if err := x.a.Run(context.Background(), c); err != nil {
				t.Fatal(err)
			}
			s := mustNSAState(t, x.a, NSAStateConfig{})
			for i := range n { // and no choice among NaN fails
				if err := x.a.Run(context.Background(), nsaPart(c, i, i+1, s)); err != nil {
					t.Fatal(err)
				}
			}
			for i, v := range c.Dst.Data[:at*c.Dst.Cols] {
				if v != v {
					t.Fatalf("element %d, before NaN at row %d, is NaN", i, at)
				}
			}
		}
	})
}

// TestNSAExact has chosen blocks, where all can be chosen, and a window as long as the
// sequence be exact attention.
func TestNSAExact(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for seed := range uint64(10) {
			x, _ := randomNSA(t, seed, 150)
			cfg := x.a.cfg
			cfg.TopK, cfg.Window = 150, 150
			x.a = mustNSA(t, cfg)
			exact, err := attention.New(attention.Config{Heads: cfg.Heads, KVHeads: cfg.KVHeads, HeadDim: cfg.HeadDim, ValueDim: cfg.ValueDim, Causal: true})
			if err != nil {
				t.Fatal(err)
			}
			n := x.q.Rows
			want, ones := mat.New(n, cfg.Heads*cfg.ValueDim), mat.New(n, cfg.Heads)
			for i := range ones.Data {
				ones.Data[i] = 1
			}
			if err := exact.Forward(want, x.q, x.k, x.v); err != nil {
				t.Fatal(err)
			}
			for _, gates := range []Gates{{Selected: ones}, {Window: ones}} {
				got := mat.New(n, cfg.Heads*cfg.ValueDim)
				if err := x.a.Forward(got, x.q, x.k, x.v, gates); err != nil {
					t.Fatal(err)
				}
				mattest.Close(t, "all keys", got.Data, want.Data, 1e-5)
			}
		}
	})
}
