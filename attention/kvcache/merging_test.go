package kvcache

import (
	"math"
	"testing"

	"github.com/subquad/subquad/internal/mat"
)

// TestMerging: values after a Compact are those of the formula in float64, keys and what is
// held are the policy's own.
func TestMerging(t *testing.T) {
	const tokens, dim = 150, 6
	for _, least := range []float64{0, 0.5} {
		cfg := Config{Heads: 4, KVHeads: 2, HeadDim: dim, Keep: 1, Recent: 3, Evict: Merging{Evict: Knorm{Budget: 40}, Similarity: least}}
		a := operator(t, cfg)
		cfg.Evict = Knorm{Budget: 40}
		plain := operator(t, cfg)
		x := newText(26, &a.cfg, tokens)
		s, p := newState(t, a, StateConfig{}), newState(t, plain, StateConfig{})
		x.run(t, a, s, 0, tokens)
		x.run(t, plain, p, 0, tokens)
		fork := s.Clone()
		must(t, s.Compact(0))
		must(t, p.Compact(0))
		merged := 0
		for g := range 2 {
			stay := s.Positions(nil, g)
			v, own := mat.New(40, dim), mat.New(40, dim)
			s.readRows(v, g, 0, false)
			p.readRows(own, g, 0, false)
			held := map[int64]bool{}
			for i, at := range stay {
				if held[at] = true; at != p.Positions(nil, g)[i] {
					t.Fatalf("key head %d holds %d, want %d", g, at, p.Positions(nil, g)[i])
				}
			}
			sums, weights := make([][dim]float64, 40), make([]float64, 40)
			length := func(x []float32) float64 {
				sum := 0.0
				for _, y := range x {
					sum += float64(y) * float64(y)
				}
				return math.Sqrt(sum)
			}
			for e := range int64(tokens) {
				if held[e] {
					continue
				}
				to, best := 0, -2.0
				k := mat.Part(x.k, int(e), g*dim, dim)
				for i, at := range stay {
					dot, other := 0.0, mat.Part(x.k, int(at), g*dim, dim)
					for j := range k {
						dot += float64(k[j]) * float64(other[j])
					}
					if c := dot / length(k) / length(other); c > best {
						to, best = i, c
					}
				}
				if best < least {
					continue
				}
				merged++
				ve := mat.Part(x.v, int(e), g*dim, dim)
				w := best * length(ve) / (length(ve) + length(mat.Row(own, to)))
				weights[to] += w
				for j, y := range ve {
					sums[to][j] += w * float64(y)
				}
			}
			for i := range stay {
				for j, y := range mat.Row(v, i) {
					want := (float64(mat.Row(own, i)[j]) + sums[i][j]) / (1 + weights[i])
					if math.Abs(float64(y)-want) > 1e-5 {
						t.Fatalf("key head %d, token %d: value %v, want %v", g, stay[i], y, want)
					}
				}
			}
		}
		if merged == 0 || least > 0 && merged == 220 {
			t.Errorf("%d of 220 merged", merged)
		}
		before := mat.New(tokens, dim)
		fork.readRows(before, 0, 0, false)
		bitsAgree(t, "a fork's values", before, mat.Columns(x.v, 0, dim))
	}
}
