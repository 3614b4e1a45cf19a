package sparse

import (
	"fmt"
	"testing"

	"github.com/subquad/subquad/internal/mat"
)

// BenchmarkMoBA is MoBA over a sequence, and a token after it, taken back each time;
// BenchmarkForward/exact is exact attention of the same heads.
func BenchmarkMoBA(b *testing.B) {
	const heads, d = 8, 64
	for _, x := range []struct{ block, top, n int }{{512, 4, 8192}, {512, 12, 65536}, {4096, 12, 131072}} {
		if testing.Short() && x.n > 8192 {
			continue
		}
		m := mustMoBA(b, MoBAConfig{Heads: heads, HeadDim: d, Block: x.block, TopK: x.top})
		name := fmt.Sprintf("block=%d/top=%d/h=%d/d=%d/n=%d", x.block, x.top, heads, d, x.n)
		b.Run("forward/"+name, func(b *testing.B) {
			q, k, v, dst := matrix(1, x.n, heads*d), matrix(2, x.n, heads*d), matrix(3, x.n, heads*d), mat.New(x.n, heads*d)
			forward := func() {
				if err := m.Forward(dst, q, k, v); err != nil {
					b.Fatal(err)
				}
			}
			forward()
			b.ReportAllocs()
			for b.Loop() {
				forward()
			}
			b.ReportMetric(float64(x.n)*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
		})
		b.Run("step/"+name, func(b *testing.B) {
			s, err := m.NewState(MoBAStateConfig{MaxTokens: x.n + 1})
			if err != nil {
				b.Fatal(err)
			}
			var memory []float32
			if err := s.take(b.Context(), new(appends), &memory, matrix(2, x.n, heads*d), matrix(3, x.n, heads*d)); err != nil {
				b.Fatal(err)
			}
			one, dst := matrix(1, 1, heads*d), mat.New(1, heads*d)
			step := func() {
				if err := m.Step(dst, one, one, one, s); err != nil {
					b.Fatal(err)
				}
				if err := s.Truncate(x.n); err != nil {
					b.Fatal(err)
				}
			}
			step()
			b.ReportAllocs()
			for b.Loop() {
				step()
			}
		})
	}
}
