package approx

import (
	"context"
	"fmt"
	"math"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
)

// TestHidden: what stands in a token that log-weights of -Inf hide from a head does not matter to
// that head's results, nor to the others' what stands in the columns of that head: be it NaN, Inf
// or a number.
func TestHidden(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		sh := shape{6, 3, 8, 9}
		const hiddenFrom = 1                                                // the key head
		hidden := func(j int) bool { return j%5 == 2 || j >= 20 && j < 90 } // a segment of Nystrom's, and blocks
		for _, op := range operators(t, sh, 1) {
			if !op.weighs() {
				continue
			}
			if x, ok := op.run.(*Nystrom); ok { // the convolution is of rows
				cfg := x.cfg
				cfg.Conv = blas32.General{}
				op.run = value[*Nystrom](t)(NewNystrom(cfg))
			}
			for _, n := range []int{6, 300} {
				for _, cols := range []int{1, 3} {
					run := func(x float32) blas32.General {
						c := randomCall(1, op.shape, n, n)
						c.LogWeights = normal(3, n, cols)
						for j := range n {
							if !hidden(j) {
								continue
							}
							mat.Row(c.LogWeights, j)[min(hiddenFrom, cols-1)] = negInf
							put := []blas32.General{c.K, c.V, c.Q}
							if _, ok := op.run.(*MRA2); ok {
								put = put[:2] // queries compete for pairs
							}
							for _, m := range put {
								from, to := 0, m.Cols
								if cols > 1 {
									from, to = hiddenFrom*m.Cols/sh.kvHeads, (hiddenFrom+1)*m.Cols/sh.kvHeads
								}
								for e := from; e < to; e++ {
									mat.Row(m, j)[e] = x
								}
							}
						}
						if err := op.run.Run(context.Background(), c.call()); err != nil {
							t.Fatal(err)
						}
						return c.Dst
					}
					want := run(0.5)
					for i, x := range []float64{3e30, math.NaN(), math.Inf(1), math.Inf(-1)} {
						if testing.Short() && i > 1 {
							break
						}
						got := run(float32(x))
						for j := range n {
							for h := range sh.heads {
								if hidden(j) && (cols == 1 || h/sh.group() == hiddenFrom) {
									continue // a query of x
								}
								part := func(m blas32.General) blas32.General {
									return mat.Columns(mat.Rows(m, j, j+1), h*op.shape.valueDim, op.shape.valueDim)
								}
								what := fmt.Sprintf("%s, %d tokens, %d columns of weights, %v hidden: token %d, head %d", op.name, n, cols, x, j, h)
								if _, ok := op.run.(*Nystrom); ok { // exact attention sums in another order beside values that are not finite
									near(t, what, part(got), [][]float64{vectorOf(want, j, h, op.shape.valueDim)}, 1e-5)
									continue
								}
								sameBits(t, what, part(got), part(want))
							}
						}
					}
				}
			}
		}
	})
}

// TestAllHidden: where log-weights hide all keys results are 0, as where nobody is there.
func TestAllHidden(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		sh := shape{4, 2, 9, 11}
		for _, op := range operators(t, sh, 1) {
			if !op.weighs() || op.name == "xca" { // a token's own values are what comes out
				continue
			}
			if x, ok := op.run.(*Nystrom); ok {
				cfg := x.cfg
				cfg.Conv = blas32.General{}
				op.run = value[*Nystrom](t)(NewNystrom(cfg))
			}
			for _, n := range []int{1, 7, 8, 70} {
				for _, cols := range []int{1, 2} {
					c := randomCall(1, op.shape, n, n)
					c.LogWeights = mat.New(n, cols)
					fill(c.LogWeights.Data, negInf)
					if err := op.run.Run(context.Background(), c.call()); err != nil {
						t.Fatal(err)
					}
					for i := range n {
						for _, x := range mat.Row(c.Dst, i) {
							if x != 0 {
								t.Fatalf("%s, %d tokens, %d columns: row %d is %v", op.name, n, cols, i, mat.Row(c.Dst, i))
							}
						}
					}
				}
			}
		}
	})
}
