package ssm

import (
	"fmt"
	"math"
	"testing"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
)

// TestSubnormal: no decay of an SSD is kept that is subnormal, which would take many times as
// long to multiply: neither a token's, nor those of a piece's tokens together. What is left
// out is in no result.
func TestSubnormal(t *testing.T) {
	const heads, width, states, n = 2, 5, 7, 2*Chunk + 50
	x, b, c := random(1, n, heads*width, 1, 0), random(2, n, states, 1, 0), random(3, n, states, 1, 0)
	cfg := SSDConfig{Heads: heads, HeadDim: width, States: states, Workers: 1}
	recurrence := cfg
	recurrence.Recurrent = true
	isatest.Run(t, func(t *testing.T) {
		for _, each := range []int{1, sparseShare} { // of as many tokens one writes
			for _, g := range []float32{-0.1, -1, -2.9, -6.5, -20, -90, -100} {
				dt, decay := zeros(n, heads), zeros(n, heads)
				for i := range n {
					for h := range heads {
						mat.Row(decay, i)[h] = g
						if i%each == 0 {
							mat.Row(dt, i)[h] = 0.5
						}
					}
				}
				var out [2][]float32
				for i, cfg := range []SSDConfig{cfg, recurrence} {
					op := value[*SSD](t)(NewSSD(cfg, SSDWeights{}))
					dst := zeros(n, heads*width)
					must(t, op.Run(t.Context(), &SSDCall{Dst: dst, X: x, Dt: dt, B: b, C: c, Decay: decay}))
					out[i] = dst.Data
					s := op.scratch.Get()
					w := &s.workers[0]
					for j, list := range [][]float32{s.shared[0].decay, s.shared[2].decay, w.row, w.scale, w.c} {
						for _, v := range list {
							if v != 0 && math.Abs(float64(v)) < 0x1p-126 {
								t.Fatalf("recurrent %v, one of %d writes, decays of %v: list %d has %v", cfg.Recurrent, each, g, j, v)
							}
						}
					}
				}
				near(t, fmt.Sprintf("one of %d writes, decays of %v", each, g), out[0], out[1], 1e-5)
			}
		}
	})
}

// BenchmarkSSDStrong has decays of exp(g) a token, of which many together would be subnormal.
func BenchmarkSSDStrong(b *testing.B) {
	const h, p, s, n = 24, 64, 128, 2048
	op := value[*SSD](b)(NewSSD(SSDConfig{Heads: h, HeadDim: p, States: s}, SSDWeights{}))
	x, bs, cs, dst, decay := random(2, n, h*p, 0.5, 0), random(4, n, s, 0.5, 0), random(5, n, s, 0.5, 0), zeros(n, h*p), zeros(n, h)
	for _, g := range []float32{-0.6, -1, -3, -6.5, -20} {
		for i := range decay.Data {
			decay.Data[i] = g
		}
		b.Run(fmt.Sprintf("h=%d/p=%d/s=%d/n=%d/g=%g", h, p, s, n, g), func(b *testing.B) {
			for b.Loop() {
				must(b, op.Run(b.Context(), &SSDCall{Dst: dst, X: x, B: bs, C: cs, Decay: decay}))
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n*h), "ns/token·head")
		})
	}
}
