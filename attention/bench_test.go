package attention

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"
)

func random(seed uint64, n int) []float32 {
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

func general(data []float32, rows, cols int) blas32.General {
	return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: data}
}

func matrix(seed uint64, rows, cols int) blas32.General {
	return general(random(seed, rows*cols), rows, cols)
}

func BenchmarkForward(b *testing.B) {
	for _, c := range []struct {
		name    string
		cfg     Config
		n       int
		reduced float64 // the share of all pairs that is visible
	}{
		{"causal", Config{Heads: 8, HeadDim: 64, Causal: true}, 2048, 0.5},
		{"causal", Config{Heads: 8, HeadDim: 128, Causal: true}, 2048, 0.5},
		{"full", Config{Heads: 8, HeadDim: 64}, 2048, 1},
		{"full", Config{Heads: 8, HeadDim: 128}, 2048, 1},
		{"causal", Config{Heads: 8, HeadDim: 64, Causal: true}, 512, 0.5},
		{"causal", Config{Heads: 8, KVHeads: 2, HeadDim: 64, Causal: true}, 2048, 0.5},
	} {
		name := fmt.Sprintf("%s/h=%d/d=%d/n=%d", c.name, c.cfg.Heads, c.cfg.HeadDim, c.n)
		if c.cfg.KVHeads > 0 {
			name = fmt.Sprintf("%s/h=%d/kv=%d/d=%d/n=%d", c.name, c.cfg.Heads, c.cfg.KVHeads, c.cfg.HeadDim, c.n)
		}
		b.Run(name, func(b *testing.B) {
			a, err := New(c.cfg)
			if err != nil {
				b.Fatal(err)
			}
			q := matrix(1, c.n, c.cfg.Heads*c.cfg.HeadDim)
			kv := a.cfg.KVHeads * c.cfg.HeadDim
			k, v, dst := matrix(2, c.n, kv), matrix(3, c.n, kv), matrix(4, c.n, q.Cols)
			if err := a.Forward(dst, q, k, v); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				a.Forward(dst, q, k, v)
			}
			flop := 4 * float64(c.n) * float64(c.n) * float64(q.Cols) * c.reduced
			b.ReportMetric(flop*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
			b.ReportMetric(float64(c.n)*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}
