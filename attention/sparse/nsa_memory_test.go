package sparse

import (
	"context"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/mat/mattest"
	"github.com/subquad/subquad/internal/state/statetest"
)

// TestNSAScratchBytes compares what a call holds with what was said before.
func TestNSAScratchBytes(t *testing.T) {
	for _, cfg := range []NSAConfig{
		{Heads: 4, KVHeads: 2, HeadDim: 24, ValueDim: 7, Workers: 1},
		{Heads: 2, HeadDim: 64, Compress: 32, Stride: 16, Workers: 2},
		{Heads: 8, KVHeads: 1, HeadDim: 16, Block: 4096, Workers: 1},
	} {
		for _, n := range []int{1, 300, 4000} {
			a := mustNSA(t, cfg)
			c := &a.cfg
			gate := mattest.Matrix(4, n, c.Heads)
			k, v := mattest.Matrix(2, n, c.KVHeads*c.HeadDim), mattest.Matrix(3, n, c.KVHeads*c.ValueDim)
			if err := a.Forward(mat.New(n, c.Heads*c.ValueDim), mattest.Matrix(1, n, c.Heads*c.HeadDim), k, v, Gates{gate, gate, gate}); err != nil {
				t.Fatal(err)
			}
			held := isatest.Held(a.scratch.Get())
			if said := a.ScratchBytes(n); held > said || held < said/3 {
				t.Errorf("%+v, %d tokens: %d bytes, said %d", cfg, n, held, said)
			}
		}
	}
}

func TestNSAAllocations(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, workers := range []int{1, 4} {
			const n, d, heads = 70, 8, 4
			a := mustNSA(t, NSAConfig{Heads: heads, KVHeads: 2, HeadDim: d, Block: 4, TopK: 3, Window: 9, Compress: 8, Stride: 2, Workers: workers})
			a.sizes.Alone = 1
			q, k, dst, gate := mattest.Matrix(1, n, heads*d), mattest.Matrix(2, n, 2*d), mat.New(n, heads*d), mattest.Matrix(3, n, heads)
			gates := Gates{gate, gate, gate}
			forward := func() {
				if err := a.Forward(dst, q, k, k, gates); err != nil {
					t.Fatal(err)
				}
			}
			s := mustNSAState(t, a, NSAStateConfig{MaxTokens: 4 * n})
			one := func(m blas32.General) blas32.General { return mat.Rows(m, 0, 1) }
			step := func() {
				if s.Len() > 3*n {
					s.Truncate(n)
				}
				if err := a.Step(one(dst), one(q), one(k), one(k), Gates{one(gate), one(gate), one(gate)}, s); err != nil {
					t.Fatal(err)
				}
			}
			many := func() {
				s.Reset()
				if err := a.Step(dst, q, k, k, gates, s); err != nil {
					t.Fatal(err)
				}
			}
			for range 3 {
				forward()
				many()
			}
			for range 3 * n {
				step()
			}
			for name, f := range map[string]func(){"Forward": forward, "Step of many": many, "Step": step} {
				if x := isatest.Allocations(f); x != 0 {
					t.Errorf("%d workers: %v allocations of %s", workers, x, name)
				}
			}
		}
	})
}

// TestNSACancel ends the context of calls at many moments: they return its error, and a
// state stands where it was.
func TestNSACancel(t *testing.T) {
	const n, heads, d = 512, 4, 32
	q, k, dst, gate := mattest.Matrix(1, n, heads*d), mattest.Matrix(2, n, 2*d), mat.New(n, heads*d), mattest.Matrix(3, n, heads)
	isatest.Run(t, func(t *testing.T) {
		a := mustNSA(t, NSAConfig{Heads: heads, KVHeads: 2, HeadDim: d, Block: 16, TopK: 4, Window: 64, Workers: 1})
		for _, rows := range []int{n, fewTokens} {
			for _, stateful := range []bool{false, true} {
				run := func(left int) (asked int, err error) {
					c := &attention.Call{Dst: mat.Rows(dst, 0, rows), Q: mat.Rows(q, 0, rows), K: []blas32.General{mat.Rows(k, 0, rows)}, V: []blas32.General{mat.Rows(k, 0, rows)}}
					g := mat.Rows(gate, 0, rows)
					c.Options = &NSAOptions{Gates: Gates{g, g, g}}
					had := 0
					if stateful {
						s := mustNSAState(t, a, NSAStateConfig{})
						had = 20
						if err := a.Step(mat.Rows(dst, 0, had), mat.Rows(q, 0, had), mat.Rows(k, 0, had), mat.Rows(k, 0, had), Gates{Window: mat.Rows(gate, 0, had)}, s); err != nil {
							t.Fatal(err)
						}
						c.State = s
					}
					ctx := &statetest.Ending{Context: context.Background(), Left: left}
					err = a.Run(ctx, c)
					if stateful {
						s := c.State.(*NSAState)
						want := had
						if err == nil {
							want += rows
						}
						for g := range s.tokens {
							if s.tokens[g].Len() != want || s.blocks[g].Len() != a.compressed(want) {
								t.Errorf("error %v: %d tokens and %d compressed keys of head %d, want %d and %d", err, s.tokens[g].Len(), s.blocks[g].Len(), g, want, a.compressed(want))
							}
						}
					}
					return ctx.Asked(), err
				}
				looks, err := run(1 << 30)
				if err != nil {
					t.Fatal(err)
				}
				for _, left := range []int{0, 1, 2, looks / 3, looks / 2, looks - 1} {
					if asked, err := run(left); err != context.Canceled || asked > left+4 {
						t.Errorf("%d rows, with a state %v: ended after %d looks of %d: error %v after %d", rows, stateful, left, looks, err, asked)
					}
				}
			}
		}
	})
}
