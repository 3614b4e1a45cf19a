package sparse

import (
	"fmt"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/mat"
)

// BenchmarkForward is causal attention of blocks of 128 queries to a tenth of the blocks of
// 128 keys that they see, their own and others drawn for each head; size=64 has blocks of 64
// of both. exact is the library's exact causal attention, which takes a minute or two at 65536
// tokens.
func BenchmarkForward(b *testing.B) {
	const heads, d = 8, 64
	chosen := func(size int) func(b *testing.B, n int) func(dst, q, k, v blas32.General) error {
		return func(b *testing.B, n int) func(dst, q, k, v blas32.General) error {
			op := mustBlocks(b, BlocksConfig{Heads: heads, HeadDim: d, Causal: true, QueryBlock: size, KeyBlock: size})
			choice := new(Choice)
			if err := op.Choose(choice, Pattern{Window: 1, Share: 0.1, Seed: 1}, n, n); err != nil {
				b.Fatal(err)
			}
			return func(dst, q, k, v blas32.General) error { return op.Forward(dst, q, k, v, choice) }
		}
	}
	for _, x := range []struct {
		name string
		make func(b *testing.B, n int) func(dst, q, k, v blas32.General) error
	}{
		{"blocks=0.1", chosen(128)},
		{"blocks=0.1/size=64", chosen(64)},
		{"exact", func(b *testing.B, _ int) func(dst, q, k, v blas32.General) error {
			op, err := attention.New(attention.Config{Heads: heads, HeadDim: d, Causal: true})
			if err != nil {
				b.Fatal(err)
			}
			return op.Forward
		}},
	} {
		for _, n := range []int{8192, 65536} {
			if testing.Short() && n > 8192 {
				continue
			}
			b.Run(fmt.Sprintf("%s/h=%d/d=%d/n=%d", x.name, heads, d, n), func(b *testing.B) {
				forward := x.make(b, n)
				q, k, v, dst := matrix(1, n, heads*d), matrix(2, n, heads*d), matrix(3, n, heads*d), mat.New(n, heads*d)
				step := func() {
					if err := forward(dst, q, k, v); err != nil {
						b.Fatal(err)
					}
				}
				if x.name != "exact" || n == 8192 { // warm up, where that does not take minutes
					step()
				}
				b.ReportAllocs()
				for b.Loop() {
					step()
				}
				b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
			})
		}
	}
}
