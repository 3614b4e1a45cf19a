package attention

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/subquad/subquad/internal/isa/isatest"
	"gonum.org/v1/gonum/blas/blas32"
)

// TestMergePartition cuts the keys at random: the parts' merge is the whole,
// the sinks counted once, whatever the parts' order.
func TestMergePartition(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		for trial := range 20 {
			cfg := Config{Heads: 4, KVHeads: 2, HeadDim: 9, ValueDim: 11, Causal: true, Window: 90 * (trial % 2), Sinks: random(3, 4)}
			a := must(t, cfg)
			small(a)
			const queries, keys = 37, 150
			q, k, v := matrix(1, queries, 36), matrix(2, keys, 18), matrix(3, keys, 22)
			whole := &Call{Q: q, K: []blas32.General{k}, V: []blas32.General{v}}
			outputs(a, whole)
			if err := a.Run(context.Background(), whole); err != nil {
				t.Fatal(err)
			}
			cuts := randomCuts(r, keys, 1+trial%5)
			var parts []Partial
			for i := range len(cuts) - 1 {
				c := &Call{Q: q, K: []blas32.General{part(k, cuts[i], cuts[i+1])}, V: []blas32.General{part(v, cuts[i], cuts[i+1])},
					QueryPos: []int64{keys - queries}, KeyPos: []int64{int64(cuts[i])}, Partial: true}
				outputs(a, c)
				if err := a.Run(context.Background(), c); err != nil {
					t.Fatal(err)
				}
				parts = append(parts, Partial{c.Dst, c.LSE})
			}
			r.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
			dst := Partial{matrix(9, queries, 44), matrix(9, queries, 4)}
			if err := Merge(dst, cfg.Sinks, parts...); err != nil {
				t.Fatal(err)
			}
			for i := range queries {
				close64(t, "out", dst.Out.Data[i*44:][:44], whole.Dst.Data[i*whole.Dst.Stride:][:44], 1e-5)
				close64(t, "lse", dst.LSE.Data[i*4:][:4], whole.LSE.Data[i*whole.LSE.Stride:][:4], 1e-5)
			}
			// Into one of the parts: the same bits.
			if err := Merge(parts[0], cfg.Sinks, parts...); err != nil {
				t.Fatal(err)
			}
			for i := range queries {
				sameBits(t, "merge in place", parts[0].Out.Data[i*parts[0].Out.Stride:][:44], dst.Out.Data[i*44:][:44])
			}
		}
	})
}

func TestMergeEmpty(t *testing.T) {
	low := float32(math.Inf(-1))
	nan := float32(math.NaN())
	one := func(x ...float32) blas32.General { return general(x, 1, len(x)) }
	dst := Partial{one(1, 2, 3, 4), one(5, 6)}
	hidden := Partial{one(nan, nan, nan, nan), one(low, low)}
	if err := Merge(dst, nil, hidden, hidden); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(dst.Out.Data, make([]float32, 4)) || !slices.Equal(dst.LSE.Data, []float32{low, low}) {
		t.Errorf("of nothing: %v", dst)
	}
	if err := Merge(dst, []float32{2, 3}, hidden); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(dst.Out.Data, make([]float32, 4)) || !slices.Equal(dst.LSE.Data, []float32{2, 3}) {
		t.Errorf("of sinks alone: %v", dst)
	}
	seen := Partial{one(7, 8, 9, 10), one(1, -1e30)}
	if err := Merge(dst, nil, hidden, seen); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(dst.Out.Data, seen.Out.Data) || !slices.Equal(dst.LSE.Data, seen.LSE.Data) {
		t.Errorf("of one part: %v", dst)
	}
}
