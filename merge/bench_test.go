package merge

import (
	"fmt"
	"testing"
)

// BenchmarkMatch is bipartite matching, r a quarter of the tokens.
func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{1024, 4096, 16384, 65536} {
		b.Run(fmt.Sprintf("n=%d/d=64", n), func(b *testing.B) {
			if testing.Short() && n > 16384 {
				b.Skip("takes seconds")
			}
			m, err := New(Config{Workers: 1})
			if err != nil {
				b.Fatal(err)
			}
			var p Plan
			metric := random(1, n, 64)
			if err := m.Match(&p, metric, n/4); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := m.Match(&p, metric, n/4); err != nil {
					b.Fatal(err)
				}
			}
			s := b.Elapsed().Seconds() / float64(b.N)
			b.ReportMetric(s*1e3, "ms")
			b.ReportMetric(float64(n)/s, "tokens/s")
			b.ReportMetric(float64(n)*float64(n)/2*64/s/1e9, "GFLOP/s")
		})
	}
}
