package maelre

import (
	"fmt"
	"testing"

	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/merge"
)

// BenchmarkEncode encodes one sequence with seven blocks of width 64, with and
// without merging half of the tokens in each.
func BenchmarkEncode(b *testing.B) {
	const d, heads, layers = 64, 4, 7
	w := weightsFor(d, 2*d, layers, 5)
	local, err := merge.New(merge.Config{Method: merge.Local})
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name string
		cfg  Config
	}{
		{"none", Config{Heads: heads}},
		{"tome", Config{Heads: heads, Ratios: []float64{0.5}}},
		{"local", Config{Heads: heads, Ratios: []float64{0.5}, Matching: local}},
	} {
		for _, n := range []int{2048, 16384} {
			b.Run(fmt.Sprintf("%s/n=%d", c.name, n), func(b *testing.B) {
				if testing.Short() && n > 2048 {
					b.Skip("long: not with -short")
				}
				m := mustNew(b, c.cfg, w)
				x, dst := input(1, n, d), mat.New(1, 5)
				if err := m.Forward(dst, x); err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				for b.Loop() {
					if err := m.Forward(dst, x); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
			})
		}
	}
}
