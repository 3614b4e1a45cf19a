package merge

import (
	"fmt"
	"testing"

	"github.com/subquad/subquad/internal/mat"
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

// BenchmarkApply merges a quarter of the tokens, size-weighted, and gives it back.
func BenchmarkApply(b *testing.B) {
	const n, dim = 4096, 768
	m, err := New(Config{Workers: 1})
	if err != nil {
		b.Fatal(err)
	}
	var p Plan
	x := random(1, n, dim)
	if err := m.Match(&p, x, n/4); err != nil {
		b.Fatal(err)
	}
	out, total := mat.New(p.Len(), dim), make([]float32, p.Len())
	b.Run("weighted", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := p.ApplyWeighted(out, x, total, nil); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(b.Elapsed().Seconds()*1e9/float64(b.N)/(n*dim), "ns/element")
	})
	b.Run("unmerge", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := p.Unmerge(x, out); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(b.Elapsed().Seconds()*1e9/float64(b.N)/(n*dim), "ns/element")
	})
}

// BenchmarkLocal is causal matching, by windows.
func BenchmarkLocal(b *testing.B) {
	const n = 65536
	for _, window := range []int{1, 2, 8, 64, 512} {
		b.Run(fmt.Sprintf("window=%d/n=%d/d=64", window, n), func(b *testing.B) {
			m, err := New(Config{Method: Local, Window: window, Workers: 1})
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
			b.ReportMetric(b.Elapsed().Seconds()*1e9/float64(b.N)/n, "ns/token")
		})
	}
}
