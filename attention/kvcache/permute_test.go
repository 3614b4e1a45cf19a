package kvcache

import (
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/rope"
)

// permuted returns x with its parts of cols columns in another order.
func permuted(x blas32.General, order []int, cols int) blas32.General {
	y := mat.New(x.Rows, x.Cols)
	for i := range x.Rows {
		for to, from := range order {
			copy(mat.Part(y, i, to*cols, cols), mat.Part(x, i, from*cols, cols))
		}
	}
	return y
}

// TestPermutedHeads (law 7): heads have no order. Query heads of a group in another order,
// and key heads with their groups, give the same outputs in that order, and hold the same.
func TestPermutedHeads(t *testing.T) {
	const heads, kvHeads, dim = 6, 2, 10
	for i := range lawCases {
		c := &lawCases[i]
		for _, order := range []struct {
			name  string
			q, kv []int
		}{
			{"in groups", []int{2, 0, 1, 4, 5, 3}, []int{0, 1}},
			{"groups", []int{3, 4, 5, 0, 1, 2}, []int{1, 0}},
		} {
			t.Run(c.name+"/"+order.name, func(t *testing.T) {
				cfg := c.config(lawShape{heads, kvHeads, dim})
				a := operator(t, cfg)
				if p, ok := cfg.Evict.(CriticalKV); ok { // which knows what is made of each head
					p.Out = permuted(p.Out, order.q, cfg.ValueDim)
					cfg.Evict = p
				}
				if cfg.Rotation != nil {
					cfg.Rotation = &rope.Config{HeadDim: dim}
				}
				b := operator(t, cfg)
				x := newText(25, &a.cfg, lawTokens)
				y := lawText{permuted(x.q, order.q, dim), permuted(x.k, order.kv, dim), permuted(x.v, order.kv, cfg.ValueDim), x.importance}
				s, p := newState(t, a, StateConfig{}), newState(t, b, StateConfig{})
				want := permuted(x.run(t, a, s, 0, lawTokens), order.q, cfg.ValueDim)
				got := y.run(t, b, p, 0, lawTokens)
				for i, v := range want.Data {
					if !(math.Abs(float64(got.Data[i]-v)) <= 1e-5) {
						t.Fatalf("row %d: %v, want %v", i/want.Cols, got.Data[i], v)
					}
				}
				for to, from := range order.kv {
					if got, want := p.Positions(nil, to), s.Positions(nil, from); !slices.Equal(got, want) {
						t.Fatalf("key head %d holds %v, want %v", to, got, want)
					}
				}
			})
		}
	}
}
