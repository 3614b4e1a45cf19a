package rope

import (
	"fmt"
	"strings"
	"testing"

	"github.com/subquad/subquad/internal/mat/mattest"
)

var random = mattest.Random

func BenchmarkRotate(b *testing.B) {
	const heads, dim, n = 32, 128, 2048
	bench := func(name string, f func()) {
		b.Run(fmt.Sprintf("%s/h=%d/d=%d/n=%d", name, heads, dim, n), func(b *testing.B) {
			f()
			b.SetBytes(4 * heads * dim * n)
			b.ReportAllocs()
			for b.Loop() {
				f()
			}
			b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
	x := matrix(random(1, n*heads*dim), n, heads*dim)
	for _, layout := range []Layout{Half, Interleaved} {
		r := mustNew(b, Config{HeadDim: dim, Layout: layout, Workers: 1})
		bench(layout.String(), func() { must(b, r.Rotate(x, 1000)) })
	}
	y := make([]float32, len(x.Data))
	bench("copy", func() { copy(y, x.Data) }) // the measure: as many bytes, moved
}

func BenchmarkBias(b *testing.B) {
	const n = 64
	s := matrix(make([]float32, n*n), n, n)
	for name, bias := range biases(b) {
		for _, distance := range []int64{100, 5000} {
			b.Run(fmt.Sprintf("%s/distance=%d", strings.ReplaceAll(name, " ", ""), distance), func(b *testing.B) {
				for b.Loop() {
					clear(s.Data)
					bias.AddTo(s, 1, distance, 0)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n*n), "ns/element")
			})
		}
	}
}
