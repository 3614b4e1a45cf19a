package dense

import (
	"context"
	"math/rand/v2"
	"testing"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
)

// TestDivide: a layer that several goroutines make has the same bits, stops when the context
// ends, and allocates nothing.
func TestDivide(t *testing.T) {
	defer func(old int) { divideWork = old }(divideWork)
	divideWork = 1
	const n, in, out = 5, 24, 1500
	isatest.Run(t, func(t *testing.T) {
		for i, format := range []asm.Format{asm.Float32, asm.BFloat16, asm.Int8, asm.Float16, asm.Float32} {
			r := rand.New(rand.NewPCG(1, 2))
			precision := [...]asm.Precision{4: asm.BFloat16x3}[i]
			x, l := random(r, n, in), NewLinearIn(format, precision, random(r, out, in), random(r, 1, out).Data)
			want, got := mat.New(n, out), mat.New(n, out)
			l.Forward(want, x)
			var g parallel.Group
			task := func(_, _ int) { l.ForwardIn(&g, got, x) }
			for _, workers := range []int{1, 2, 3, 8} {
				for rows := 1; rows <= n; rows += 2 {
					clear(got.Data)
					part := func(_, _ int) { l.ForwardIn(&g, mat.Rows(got, 0, rows), mat.Rows(x, 0, rows)) }
					if err := g.Run(context.Background(), workers, 1, part); err != nil {
						t.Fatal(err)
					}
					same(t, format, got.Data[:rows*out], want.Data[:rows*out])
				}
			}
			ended, cancel := context.WithCancel(context.Background())
			cut := func(_, _ int) { cancel(); l.ForwardIn(&g, got, x) }
			if err := g.Run(ended, 4, 1, cut); err != context.Canceled {
				t.Errorf("error %v of a layer whose context ends", err)
			}
			if a := testing.AllocsPerRun(50, func() { _ = g.Run(context.Background(), 4, 1, task) }); a > 0 {
				t.Errorf("%v allocations", a)
			}
		}
	})
}
