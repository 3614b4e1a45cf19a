package approx

import (
	"context"
	"math"
	"testing"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
)

// TestFutureValues: a value that is NaN or Inf reaches no query before it.
func TestFutureValues(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		sh := shape{6, 2, 8, 9}
		for _, op := range operators(t, sh, 1) {
			if f := featuredOf(op.run); f == nil || !f.causal {
				continue
			}
			for _, bad := range []float64{math.NaN(), math.Inf(1)} {
				clean, c := randomCall(1, sh, 200, 200), randomCall(1, sh, 200, 200)
				mat.Row(c.V, 70)[0] = float32(bad)
				for _, c := range []*request{clean, c} {
					if err := op.run.Run(context.Background(), c.call()); err != nil {
						t.Fatal(err)
					}
				}
				sameBits(t, op.name, mat.Rows(c.Dst, 0, 70), mat.Rows(clean.Dst, 0, 70))
				if x := mat.Row(c.Dst, 70)[0]; finite(x) {
					t.Fatalf("%s: a query that sees %v is %v", op.name, bad, x)
				}
			}
		}
	})
}

// TestHiddenFromHead: keys that log-weights of -Inf hide from one head do not matter to it, be
// they all or of features that are Inf.
func TestHiddenFromHead(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		sh := shape{2, 2, 256, 4}
		for _, causal := range []bool{false, true} {
			p := value[*Performer](t)(NewPerformer(PerformerConfig{Heads: 2, HeadDim: 256, ValueDim: 4, Features: 64, Causal: causal}))
			c := randomCall(1, sh, 20, 20)
			for i := range c.K.Rows {
				for j := range mat.Row(c.K, i) {
					mat.Row(c.K, i)[j] *= 0.01
				}
			}
			for e, x := range mat.Row(p.Projection(), 0) {
				mat.Row(c.K, 5)[e] = 4 * x // exp(|w|^2/2) is more than a float32 holds
			}
			c.LogWeights = mat.New(20, 2)
			mat.Row(c.LogWeights, 5)[0] = negInf
			if err := p.Run(context.Background(), c.call()); err != nil {
				t.Fatal(err)
			}
			for i := range c.Dst.Rows {
				for j, x := range mat.Row(c.Dst, i) {
					if !finite(x) {
						t.Fatalf("causal %v: row %d column %d is %v with a key that is hidden", causal, i, j, x)
					}
				}
			}
		}
		for _, op := range operators(t, sh, 1) {
			if featuredOf(op.run) == nil {
				continue
			}
			c := randomCall(1, sh, 70, 70)
			c.LogWeights = mat.New(70, 2)
			for i := range c.LogWeights.Data {
				c.LogWeights.Data[i] = negInf
			}
			if err := op.run.Run(context.Background(), c.call()); err != nil {
				t.Fatal(err)
			}
			sameBits(t, op.name+", all keys hidden", c.Dst, mat.New(70, 8))
		}
	})
}
