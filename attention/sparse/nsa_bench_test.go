package sparse

import (
	"fmt"
	"testing"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/mat/mattest"
)

// BenchmarkNSA is Forward and, for one token after n, Step, each beside exact attention's of
// the same sizes. Queries, keys and values are noise, so that neighbours choose different
// blocks.
func BenchmarkNSA(b *testing.B) {
	for _, c := range []struct{ heads, kvHeads, d int }{{16, 1, 64}, {16, 4, 64}, {8, 8, 64}} {
		n := 16384
		if testing.Short() {
			n = 4096
		}
		name := fmt.Sprintf("h=%d/kv=%d/d=%d/n=%d", c.heads, c.kvHeads, c.d, n)
		a := mustNSA(b, NSAConfig{Heads: c.heads, KVHeads: c.kvHeads, HeadDim: c.d})
		exact, err := attention.New(attention.Config{Heads: c.heads, KVHeads: c.kvHeads, HeadDim: c.d, Causal: true})
		if err != nil {
			b.Fatal(err)
		}
		q, k, v := mattest.Matrix(1, n, c.heads*c.d), mattest.Matrix(2, n, c.kvHeads*c.d), mattest.Matrix(3, n, c.kvHeads*c.d)
		dst, gate := mat.New(n, c.heads*c.d), mattest.Matrix(4, n, c.heads)
		gates := Gates{gate, gate, gate}
		each := func(name string, tokens int, f func() error) {
			b.Run(name, func(b *testing.B) {
				for b.Loop() {
					if err := f(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(tokens)*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
			})
		}
		each(name+"/forward", n, func() error { return a.Forward(dst, q, k, v, gates) })
		each(name+"/forward-exact", n, func() error { return exact.Forward(dst, q, k, v) })
		s := mustNSAState(b, a, NSAStateConfig{MaxTokens: n + 1})
		past, err := exact.NewState(attention.StateConfig{MaxTokens: n + 1})
		if err != nil {
			b.Fatal(err)
		}
		if err := a.Step(dst, q, k, v, gates, s); err != nil {
			b.Fatal(err)
		}
		if err := past.Append(k, v); err != nil {
			b.Fatal(err)
		}
		g := Gates{mat.Rows(gate, 0, 1), mat.Rows(gate, 0, 1), mat.Rows(gate, 0, 1)}
		each(name+"/step", 1, func() error {
			if err := a.Step(mat.Rows(dst, 0, 1), mat.Rows(q, 0, 1), mat.Rows(k, 0, 1), mat.Rows(v, 0, 1), g, s); err != nil {
				return err
			}
			return s.Truncate(n)
		})
		each(name+"/step-exact", 1, func() error {
			if err := exact.Step(mat.Rows(dst, 0, 1), mat.Rows(q, 0, 1), mat.Rows(k, 0, 1), mat.Rows(v, 0, 1), past); err != nil {
				return err
			}
			return past.Truncate(n)
		})
	}
}
