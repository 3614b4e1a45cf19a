package kvcache

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/subquad/subquad/internal/isa/isatest"
)

// TestBestVotes: to rule out tokens by their best head chooses as all votes do, for heads
// that agree, that do not, for scores far apart and close together, ties, and NaN.
func TestBestVotes(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		a := operator(t, Config{Heads: 8, KVHeads: 2, HeadDim: 8, Select: TokenSelect{TopK: 20}})
		rng := rand.New(rand.NewPCG(1, 9))
		const n = 2500
		for name, score := range map[string]func(h, i int) float32{
			"wide":   func(int, int) float32 { return float32(30 * rng.NormFloat64()) },
			"narrow": func(int, int) float32 { return float32(.1 * rng.NormFloat64()) },
			"agree":  func(h, i int) float32 { return float32(i*7919%n) / 50 },
			"ties":   func(_, i int) float32 { return float32(i % 11) },
			"one":    func(h, i int) float32 { return float32(h+1) * float32(math.Sin(float64(i*(h+3)))) * 9 },
			"NaN":    func(_, i int) float32 { return []float32{1, float32(math.NaN()), -3}[i%3] },
			"mostly": func(_, i int) float32 { return []float32{float32(i), float32(math.NaN())}[min(1, i/12)] },
			"-Inf":   func(h, i int) float32 { return []float32{float32(i % 5), negInf}[min(1, i%40)] },
		} {
			r := &run{op: a, ctx: t.Context()}
			r.sel.to = n
			r.sel.log = make([]float32, 8*n)
			for h := range 8 {
				for i := range n {
					r.sel.log[h*n+i] = score(h, i)
				}
			}
			all := slices.Clone(r.sel.log)
			got, err := r.bestVotes(20)
			must(t, err)
			got = slices.Clone(got)
			copy(r.sel.log, all)
			votes, err := r.logVotes()
			must(t, err)
			want := r.pickTop(votes, 20)
			if !slices.Equal(got, want) {
				t.Errorf("%s: %v, want %v", name, got, want)
			}
		}
	})
}
