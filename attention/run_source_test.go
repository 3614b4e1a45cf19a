package attention

import (
	"context"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
)

// TestExtras has several sets of extra keys, with heads and visibility of
// their own, give what the merge of attention to each gives.
func TestExtras(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const n, d, heads = 70, 12, 6
		a := must(t, Config{Heads: heads, KVHeads: 2, HeadDim: d, Causal: true, Window: 9})
		small(a)
		q, k, v := matrix(1, n, heads*d), matrix(2, n, 2*d), matrix(3, n, 2*d)
		none := blas32.General{Cols: 2 * d}
		var all []Extra
		var parts []Partial
		run := func(k, v blas32.General, e []Extra) Partial {
			c := &Call{Q: q, K: []blas32.General{k}, V: []blas32.General{v}, Extra: e, QueryPos: []int64{0}}
			outputs(a, c)
			c.Mass, c.Entropy = blas32.General{}, blas32.General{}
			if err := a.Run(context.Background(), c); err != nil {
				t.Fatal(err)
			}
			return Partial{c.Dst, c.LSE}
		}
		for i, h := range []int{6, 1, 3, 2} {
			e := Extra{Heads: h, K: []blas32.General{matrix(uint64(10+i), 40+i, h*d)}, V: []blas32.General{matrix(uint64(20+i), 40+i, h*d)}}
			if i != 2 {
				e.Visible = func(q int64) (int64, int64) { return q / 4, q/4 + int64(2*i) }
			}
			parts = append(parts, run(none, none, []Extra{e}))
			all = append([]Extra{e}, all...)
		}
		parts = append(parts, run(k, v, nil))
		got := run(k, v, all)
		want := Partial{matrix(30, n, heads*d), matrix(31, n, heads)}
		if err := Merge(want, nil, parts...); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			close64(t, "out", got.Out.Data[i*got.Out.Stride:][:heads*d], want.Out.Data[i*heads*d:][:heads*d], 5e-6)
			close64(t, "lse", got.LSE.Data[i*got.LSE.Stride:][:heads], want.LSE.Data[i*heads:][:heads], 5e-6)
		}
	})
}

// TestExtraPanic has a panic in Visible come back as an error.
func TestExtraPanic(t *testing.T) {
	a := must(t, Config{Heads: 1, HeadDim: 2})
	x := matrix(1, 3, 2)
	e := []Extra{{K: []blas32.General{x}, V: []blas32.General{x}, Visible: func(int64) (int64, int64) { panic("no idea") }}}
	err := a.Run(context.Background(), &Call{Dst: matrix(2, 3, 2), Q: x, Extra: e})
	if err == nil || err.Error() != "attention: panic in a worker: no idea" {
		t.Errorf("error %v", err)
	}
}

func TestExtraMany(t *testing.T) {
	a := must(t, Config{Heads: 1, HeadDim: 2})
	x := matrix(1, 3, 2)
	err := a.Run(context.Background(), &Call{Dst: matrix(2, 3, 2), Q: x, Extra: make([]Extra, 65)})
	if err == nil || err.Error() != "attention: Extra has 65 elements, want at most 64" {
		t.Errorf("error %v", err)
	}
}
