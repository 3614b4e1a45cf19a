package dense

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
)

// asked is a context that counts how often it is asked whether it has ended, and says yes
// from one time on.
type asked struct {
	context.Context
	times, end int
}

func (a *asked) Err() error {
	if a.times++; a.times >= a.end {
		return context.Canceled
	}
	return nil
}

// TestParts: a layer of many outputs asks whether to go on once for every so many
// multiply-adds, stops within as many, and has the same bits as in one piece.
func TestParts(t *testing.T) {
	defer func(old int) { partWork = old }(partWork)
	const n, in, out = 13, 24, 1000
	isatest.Run(t, func(t *testing.T) {
		for _, kind := range []struct {
			format    asm.Format
			precision asm.Precision
		}{{asm.Float32, 0}, {asm.BFloat16, 0}, {asm.Int8, 0}, {asm.Float16, 0}, {asm.Float32, asm.BFloat16x3}, {asm.Float32, asm.BFloat16x6}, {asm.Float32, asm.BFloat16x1}} {
			format := kind.format
			r := rand.New(rand.NewPCG(1, 2))
			x, bias := random(r, n, in), random(r, 1, out).Data
			l := NewLinearIn(format, kind.precision, random(r, out, in), bias)
			plain := NewLinearIn(format, kind.precision, random(r, out, in), nil)
			unit := l.unit()
			partWork = 1 << 30
			want, wantPlain := mat.New(n, out), mat.New(n, out)
			l.Forward(want, x)
			plain.Forward(wantPlain, x)
			for _, partWork = range []int{1, n * in * 2 * unit, l.slow * n * in * unit / 3, l.slow * n * in * 2 * unit, n * in * out} {
				columns, high := max(l.part()/(n*in)/unit, 1)*unit, l.partRows(n)
				if l.slow > 1 && high > 1 && high*columns*in > max(l.part(), in*unit) {
					t.Errorf("%v: a part has %d rows of %d columns, more than %d multiply-adds", format, high, columns, l.part())
				}
				across := (n + high - 1) / high
				parts := (out + columns - 1) / columns * across
				for rows := 1; rows <= n; rows += 4 {
					got := mat.New(rows, out)
					l.Forward(got, mat.Rows(x, 0, rows))
					same(t, format, got.Data, want.Data[:rows*out])
				}
				got := mat.New(n, out)
				plain.Forward(got, x)
				same(t, format, got.Data, wantPlain.Data)

				var g parallel.Group
				task := func(_, _ int) { l.ForwardIn(&g, got, x) }
				ctx := &asked{Context: context.Background(), end: 1 << 30}
				if err := g.Run(ctx, 1, 1, task); err != nil {
					t.Fatal(err)
				}
				same(t, format, got.Data, want.Data)
				// The group asks before it begins and before the task.
				if times := ctx.times - 2; parts > 1 && times != parts {
					t.Errorf("%v: asked %d times for %d parts of %d columns and %d rows", format, times, parts, columns, high)
				}
				if parts < 4 {
					continue
				}
				mat.Clear(got)
				ctx = &asked{Context: context.Background(), end: 5} // before the third part
				if err := g.Run(ctx, 1, 1, task); err != context.Canceled {
					t.Errorf("%v: error %v of a context that ended", format, err)
				}
				for i := range n {
					for j, v := range mat.Row(got, i) {
						if done := v != 0; done != (j/columns*across+i/high < 2) {
							t.Fatalf("%v: element %d, %d of parts of %d by %d: %v", format, i, j, high, columns, v)
						}
					}
				}
			}
			x1, y1 := mat.Rows(x, 0, 1), mat.New(1, out)
			if a := testing.AllocsPerRun(5, func() { l.Forward(y1, x1) }); a != 0 {
				t.Errorf("%v: %v allocations", format, a)
			}
		}
	})
}

// TestLooks: where there are no vectors, or not the unit of a precision, a layer asks whether to go on
// every few milliseconds of that, also one of many rows and few outputs.
func TestLooks(t *testing.T) {
	defer isa.Without(isa.AMXBFloat16)()
	defer isa.Use(isa.Generic)()
	for _, c := range []struct {
		precision  asm.Precision
		n, in, out int
		most       int // multiply-adds between two looks
	}{{asm.Single, 192, 512, 128, 4_000_000}, {asm.Single, 192, 8192, 4, 4_000_000}, {asm.BFloat16x1, 64, 2048, 32, 1_000_000}, {asm.BFloat16x3, 8, 512, 300, 1_000_000}} {
		l := NewLinearIn(asm.Float32, c.precision, mat.New(c.out, c.in), nil)
		x, y := mat.New(c.n, c.in), mat.New(c.n, c.out)
		var g parallel.Group
		ctx := &asked{Context: context.Background(), end: 1 << 30}
		if err := g.Run(ctx, 1, 1, func(_, _ int) { l.ForwardIn(&g, y, x) }); err != nil {
			t.Fatal(err)
		}
		if want := c.n * c.in * c.out / c.most; ctx.times-2 < want {
			t.Errorf("%v of %d x %d x %d: asked %d times, want %d", c.precision, c.n, c.in, c.out, ctx.times-2, want)
		}
	}
}

func same(t *testing.T, format fmt.Stringer, got, want []float32) {
	t.Helper()
	for i, v := range want {
		if got[i] != v {
			t.Fatal(fmt.Sprintf("%v: element %d is %v, in one piece %v", format, i, got[i], v))
		}
	}
}
