package attention

import (
	"context"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state/statetest"
)

// TestCancelSoon ends the context of long calls at many moments: they look at it at least
// once in so many multiply-adds, return context.Canceled itself, and a state stands where it
// was.
func TestCancelSoon(t *testing.T) {
	const heads, kvHeads, d = 4, 2, 64
	n := 512
	if testing.Short() {
		n = 384
	}
	const most = 8 << 20 // multiply-adds between two looks: a few milliseconds without vectors
	q, k, v, dst := matrix(1, n, heads*d), matrix(2, n, kvHeads*d), matrix(3, n, kvHeads*d), mat.New(n, heads*d)
	isatest.Run(t, func(t *testing.T) {
		a := must(t, Config{Heads: heads, KVHeads: kvHeads, HeadDim: d, Causal: true})
		calls := map[string]func() *Call{
			"forward": func() *Call { return &Call{} },
			"mass":    func() *Call { return &Call{Mass: mat.New(n, heads)} },
		}
		for _, format := range []asm.Format{asm.Float32, asm.Int8} {
			calls["step in "+format.String()] = func() *Call { return &Call{State: newState(t, a, StateConfig{Format: format})} }
		}
		for name, make := range calls {
			run := func(left int) (asked int, err error) {
				c := make()
				c.Dst, c.Q, c.K, c.V, c.Workers = dst, q, []blas32.General{k}, []blas32.General{v}, 1
				ctx := &statetest.Ending{Context: context.Background(), Left: left}
				err = a.Run(ctx, c)
				if c.State != nil && (err == nil) != (c.State.Len() == n) || err != nil && c.State != nil && c.State.Len() != 0 {
					t.Errorf("%s, error %v: the state has %d tokens", name, err, c.State.Len())
				}
				return ctx.Asked(), err
			}
			looks, err := run(1 << 30)
			if err != nil {
				t.Fatal(err)
			}
			if want := n * n / 2 * heads * 2 * d / most; looks < want {
				t.Errorf("%s: %d looks at the context, want %d", name, looks, want)
			}
			for _, left := range []int{0, looks / 3, looks - 1} {
				if asked, err := run(left); err != context.Canceled || asked > left+4 {
					t.Errorf("%s: ended after %d looks of %d: error %v after %d", name, left, looks, err, asked)
				}
			}
		}
	})
}
