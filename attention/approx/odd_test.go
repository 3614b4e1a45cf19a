package approx

import (
	"context"
	"fmt"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
)

// times multiplies the elements of m, which has gaps, by x.
func times(m blas32.General, x float32) {
	for i := range m.Rows {
		for j := range mat.Row(m, i) {
			mat.Row(m, i)[j] *= x
		}
	}
}

// TestOdd compares with the formulas in float64: widths beside those of tiles, one key head, one
// token, other queries than keys, elements that are tiny, and values that are huge.
func TestOdd(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, sh := range []shape{{4, 1, 3, 65}, {2, 2, 1, 3}, {2, 1, 63, 1}, {2, 2, 65, 63}} {
			for _, op := range operators(t, sh, 1) {
				for _, n := range [][2]int{{1, 1}, {37, 37}, {90, 90}, {3, 70}, {70, 1}} {
					if op.self && n[0] != n[1] || testing.Short() && n[0] == 90 && sh.dim != 63 {
						continue
					}
					for _, size := range [][3]float32{{1, 1, 1}, {1e-30, 1e-30, 1e-30}, {1, 1, 1e30}} {
						c := randomCall(3, op.shape, n[0], n[1])
						times(c.Q, size[0])
						times(c.K, size[1])
						times(c.V, size[2])
						if err := op.run.Run(context.Background(), c.call()); err != nil {
							t.Fatal(err)
						}
						want := op.oracle(c, op.shape)
						times(c.Dst, 1/size[2])
						for i := range want {
							for j := range want[i] {
								want[i][j] /= float64(size[2])
							}
						}
						near(t, fmt.Sprintf("%s %v, %d queries, %d keys, of %v", op.name, sh, n[0], n[1], size), c.Dst, want, 1e-4)
					}
				}
			}
		}
	})
}

// TestOverflow: where products of finite features are more than a float32 holds there is no
// number that looks like a result.
func TestOverflow(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, op := range operators(t, shape{4, 2, 16, 5}, 1) {
			switch op.name {
			case "linear", "causal", "xca", "performer relu", "based":
			default:
				continue
			}
			for _, n := range []int{2, 70, 300} {
				c := randomCall(3, op.shape, n, n)
				times(c.Q, 1e30)
				times(c.K, 1e30)
				if err := op.run.Run(context.Background(), c.call()); err != nil {
					t.Fatal(err)
				}
				for i := range n {
					for j, x := range mat.Row(c.Dst, i) {
						if finite(x) && i > 1 {
							t.Fatalf("%s, %d tokens: row %d column %d is %v", op.name, n, i, j, x)
						}
					}
				}
			}
		}
	})
}
