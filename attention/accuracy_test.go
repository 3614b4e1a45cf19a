package attention

import (
	"context"
	"math"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
)

// TestAccuracy measures the error of long sequences against float64 on some
// rows: the table in the package's documentation.
func TestAccuracy(t *testing.T) {
	inPrecisions(t, func(t *testing.T, precision asm.Precision) {
		for _, n := range []int{1024, 16384} {
			if n > 1024 && (testing.Short() || precision != asm.Single && precision.Unit() == "none") {
				continue
			}
			const heads, d = 2, 64
			rows := []int{0, n / 3, n/2 + 1, n - 2, n - 1}
			a := must(t, Config{Heads: heads, HeadDim: d, Causal: true, Precision: precision})
			k, v := matrix(2, n, heads*d), matrix(3, n, heads*d)
			worst, worstLSE := 0.0, 0.0
			for i, at := range rows {
				c := &Call{Q: matrix(uint64(10+i), 1, heads*d), K: []blas32.General{k}, V: []blas32.General{v}, QueryPos: []int64{int64(at)}}
				outputs(a, c)
				c.Mass, c.Entropy = blas32.General{}, blas32.General{}
				if err := a.Run(context.Background(), c); err != nil {
					t.Fatal(err)
				}
				want := oracle(a, c)
				for j, w := range want.out[0] {
					worst = math.Max(worst, math.Abs(float64(c.Dst.Data[j])-w))
				}
				for h, w := range want.lse[0] {
					worstLSE = math.Max(worstLSE, math.Abs(float64(c.LSE.Data[h])-w))
				}
			}
			t.Logf("%d keys: out %.2g, LSE %.2g", n, worst, worstLSE)
			wider := map[asm.Precision]float64{asm.Single: 1, asm.BFloat16x3: 30, asm.BFloat16x6: 1, asm.BFloat16x1: 10000}[precision]
			if worst > wider*1e-6 || worstLSE > wider*3e-6 {
				t.Errorf("%d keys: out %.2g, LSE %.2g", n, worst, worstLSE)
			}
		}
	})
}
