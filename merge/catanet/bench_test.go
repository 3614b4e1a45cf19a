package catanet

import (
	"testing"

	"github.com/subquad/subquad/internal/mat"
)

// BenchmarkTAB is a block of CATANet on an image, with the published numbers.
func BenchmarkTAB(b *testing.B) {
	const side = 64
	cfg := TABConfig{Dim: 40, QKDim: 36, Inner: 96, Heads: 4, Centers: 64, GroupSize: 128, Workers: 1}
	op, err := NewTAB(cfg, tabWeights(cfg, true))
	if err != nil {
		b.Fatal(err)
	}
	x, out := random(1, side*side, cfg.Dim), mat.New(side*side, cfg.Dim)
	if err := op.Forward(out, x, side, side); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := op.Forward(out, x, side, side); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(side*side*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
}
