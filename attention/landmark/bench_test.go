package landmark

import (
	"fmt"
	"testing"
)

// BenchmarkLandmark is Forward with a landmark after every 50 tokens, and Step
// for one token after n.
func BenchmarkLandmark(b *testing.B) {
	const heads, d, n = 8, 64, 8192
	l := mustLandmark(b, Config{Heads: heads, HeadDim: d, Rotation: rotation(d)})
	q, k, v, dst := matrix(1, n, heads*d), matrix(2, n, heads*d), matrix(3, n, heads*d), zeroMatrix(n, heads*d)
	is := make([]bool, n)
	for i := range is {
		is[i] = l.IsLandmark(int64(i))
	}
	b.Run(fmt.Sprintf("forward/h=%d/d=%d/n=%d", heads, d, n), func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := l.Forward(dst, q, k, v, is); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
	})
	b.Run(fmt.Sprintf("step/h=%d/d=%d/n=%d", heads, d, n), func(b *testing.B) {
		s, err := l.NewState(StateConfig{MaxBlocks: n/51 + 1})
		if err != nil {
			b.Fatal(err)
		}
		step := func(from, to int) {
			for i := range to - from {
				is[i] = l.IsLandmark(s.length + int64(i))
			}
			if err := l.Step(part(dst, from, to), part(q, from, to), part(k, from, to), part(v, from, to), is[:to-from], s); err != nil {
				b.Fatal(err)
			}
		}
		for at := 0; at < n; at += 512 {
			step(at, at+512)
		}
		b.ReportAllocs()
		for b.Loop() {
			step(0, 1)
		}
	})
}
