package sparse

import (
	"fmt"
	"testing"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/mat/mattest"
)

// BenchmarkForward is causal attention of blocks of 128 queries to a tenth of the blocks of
// 128 keys that they see, their own and others drawn for each head; exact is the library's
// exact causal attention, which takes minutes at 65536 tokens.
func BenchmarkForward(b *testing.B) {
	const heads, d = 8, 64
	for _, n := range []int{8192, 16384, 65536} {
		if testing.Short() && n > 8192 {
			continue
		}
		q, k, v, dst := mattest.Matrix(1, n, heads*d), mattest.Matrix(2, n, heads*d), mattest.Matrix(3, n, heads*d), mat.New(n, heads*d)
		run := func(name string, forward func() error) {
			b.Run(fmt.Sprintf("%s/h=%d/d=%d/n=%d", name, heads, d, n), func(b *testing.B) {
				if name != "exact" || n < 65536 {
					if err := forward(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportAllocs()
				for b.Loop() {
					if err := forward(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
			})
		}
		for _, share := range []float64{0.1} {
			for _, size := range []int{128, 64, 256} {
				op, err := NewBlocks(BlocksConfig{Heads: heads, HeadDim: d, Causal: true, QueryBlock: size, KeyBlock: size})
				if err != nil {
					b.Fatal(err)
				}
				var c Choice
				if err := op.Choose(&c, Pattern{Window: 1, Share: share, Seed: 1}, n, n); err != nil {
					b.Fatal(err)
				}
				name := fmt.Sprintf("blocks=%g", share)
				if size != 128 {
					name = fmt.Sprintf("%s/size=%d", name, size)
				}
				run(name, func() error { return op.Forward(dst, q, k, v, &c) })
			}
		}
		exact, err := attention.New(attention.Config{Heads: heads, HeadDim: d, Causal: true})
		if err != nil {
			b.Fatal(err)
		}
		run("exact", func() error { return exact.Forward(dst, q, k, v) })
	}
}
