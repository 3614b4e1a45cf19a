package merge

import (
	"fmt"
	"testing"
)

// BenchmarkMAELRE encodes one sequence with seven blocks of width 64, with and
// without merging half of the tokens in each.
func BenchmarkMAELRE(b *testing.B) {
	const d, heads, layers = 64, 4, 7
	w := maelreWeights(d, 2*d, layers, 5)
	local, err := New(Config{Method: Local})
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name string
		cfg  MAELREConfig
	}{
		{"none", MAELREConfig{Heads: heads}},
		{"tome", MAELREConfig{Heads: heads, Ratios: []float64{0.5}}},
		{"local", MAELREConfig{Heads: heads, Ratios: []float64{0.5}, Matching: local}},
	} {
		for _, n := range []int{2048, 16384} {
			b.Run(fmt.Sprintf("%s/n=%d", c.name, n), func(b *testing.B) {
				if testing.Short() && n > 2048 {
					b.Skip("long: not with -short")
				}
				m := mustMAELRE(b, c.cfg, w)
				x, dst := maelreInput(1, n, d), zeros(1, 5)
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
