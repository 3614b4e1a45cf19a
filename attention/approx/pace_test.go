package approx

import (
	"context"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/state/statetest"
)

// TestStrips: products in strips of rows have the bits of whole ones, and end with the context.
func TestStrips(t *testing.T) {
	const n, k, cols = 55, 700, 600
	isatest.Run(t, func(t *testing.T) {
		var b kernel.Matrix
		b.Set(normal(1, k, cols))
		a, start := normal(2, n, k), normal(3, n, cols)
		turned := mat.New(k, n)
		for i := range n {
			for j := range k {
				mat.Row(turned, j)[i] = mat.Row(a, i)[j]
			}
		}
		copied := func() blas32.General { m := mat.New(n, cols); mat.Copy(m, start); return m }
		for _, c := range []struct {
			name        string
			whole, part func(p *pace, dst blas32.General)
		}{
			{"gemm", func(_ *pace, dst blas32.General) { kernel.Gemm(dst, a, &b, nil) }, func(p *pace, dst blas32.General) { p.gemm(dst, a, &b) }},
			{"gemmAdd", func(_ *pace, dst blas32.General) { kernel.GemmAdd(dst, a, &b) }, func(p *pace, dst blas32.General) { p.gemmAdd(dst, a, &b) }},
			{"gemmTAdd", func(_ *pace, dst blas32.General) { kernel.GemmTAdd(dst, turned, &b) }, func(p *pace, dst blas32.General) { p.gemmTAdd(dst, turned, &b) }},
		} {
			want, got, left := copied(), copied(), copied()
			c.whole(nil, want)
			var g parallel.Group
			run := func(looks int, dst blas32.General) (*statetest.Ending, error) {
				ctx := &statetest.Ending{Context: context.Background(), Left: looks}
				return ctx, g.Run(ctx, 1, 1, func(_, _ int) {
					var p pace
					p.begin(&g)
					c.part(&p, dst)
				})
			}
			ctx, err := run(1<<30, got)
			if err != nil || ctx.Asked() < 3 {
				t.Fatalf("%s: error %v after %d looks", c.name, err, ctx.Asked())
			}
			sameBits(t, c.name, got, want)
			if _, err := run(2, left); err != context.Canceled {
				t.Fatalf("%s: error %v", c.name, err)
			}
			sameBits(t, c.name+", ended", left, start)
		}
	})
}

// TestLargeBlocks: MRA2 with all pairs is exact attention, in blocks whose queries are not all
// attended to at once, too.
func TestLargeBlocks(t *testing.T) {
	const n, heads, d = 600, 2, 128
	isatest.Run(t, func(t *testing.T) {
		exact := value[*attention.Attention](t)(attention.New(attention.Config{Heads: heads, HeadDim: d}))
		m := value[*MRA2](t)(NewMRA2(MRA2Config{Heads: heads, HeadDim: d, Block: 512, Pairs: 4}))
		q, k, v := normal(1, n, heads*d), normal(2, n, heads*d), normal(3, n, heads*d)
		got, want := mat.New(n, heads*d), mat.New(n, heads*d)
		if err := exact.Forward(want, q, k, v); err != nil {
			t.Fatal(err)
		}
		if err := m.Forward(got, q, k, v); err != nil {
			t.Fatal(err)
		}
		rows := make([][]float64, n)
		for i := range rows {
			rows[i] = vectorOf(want, i, 0, heads*d)
		}
		near(t, "all pairs", got, rows, 1e-4)
	})
}
