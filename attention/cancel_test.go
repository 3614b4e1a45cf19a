package attention

import (
	"context"
	"math"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/isa"
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
	const most = 3 << 20 // multiply-adds between two looks: a few milliseconds without vectors
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

// TestCancelSoonInParts is TestCancelSoon in parts of bfloat16 without the unit, where a look comes
// at least once in so many products of two parts: also where a value is not finite, in the tiles
// of prefill and in the second pass.
func TestCancelSoonInParts(t *testing.T) {
	defer isa.Without(isa.AMXBFloat16)()
	const heads, d, n, most = 2, 96, 160, 1 << 21
	for precision, terms := range map[asm.Precision]int{asm.BFloat16x1: 1, asm.BFloat16x3: 3, asm.BFloat16x6: 6} {
		if testing.Short() && terms < 6 {
			continue
		}
		a := must(t, Config{Heads: heads, KVHeads: 1, HeadDim: d, Precision: precision, Workers: 1})
		causal := must(t, Config{Heads: heads, KVHeads: 1, HeadDim: d, Causal: true, Precision: precision, Workers: 1})
		wild := matrix(3, n, d)
		wild.Data[7] = float32(math.Inf(1))
		all := n * n * heads * d * terms / most // looks of one product
		for name, c := range map[string]struct {
			op    *Attention
			call  Call
			looks int
		}{
			"forward":    {a, Call{}, 2 * all},
			"not finite": {a, Call{V: []blas32.General{wild}}, 2 * all},
			"mass":       {a, Call{Mass: mat.New(n, heads)}, 3 * all},
			"prefill":    {causal, Call{Prefill: true}, all},
		} {
			run := func(left int) (asked int, err error) {
				call := c.call
				call.Dst, call.Q, call.K = mat.New(n, heads*d), matrix(1, n, heads*d), []blas32.General{matrix(2, n, d)}
				if call.V == nil {
					call.V = []blas32.General{matrix(3, n, d)}
				}
				if call.Prefill {
					call.State = newState(t, c.op, StateConfig{})
				}
				ctx := &statetest.Ending{Context: context.Background(), Left: left}
				err = c.op.Run(ctx, &call)
				return ctx.Asked(), err
			}
			looks, err := run(1 << 30)
			if err != nil {
				t.Fatal(err)
			}
			if looks < c.looks {
				t.Errorf("%v, %s: %d looks at the context, want %d", precision, name, looks, c.looks)
			}
			for _, left := range []int{looks / 3, looks * 2 / 3, looks - 1} {
				if asked, err := run(left); err != context.Canceled || asked > left+6 {
					t.Errorf("%v, %s: ended after %d looks of %d: error %v after %d", precision, name, left, looks, err, asked)
				}
			}
		}
	}
}
