package sparse

import (
	"slices"
	"testing"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/mat/mattest"
	"github.com/subquad/subquad/internal/topk"
)

// TestGates has more means than are packed, and scored, at a time: of whole numbers, whose
// products are exact.
func TestGates(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const blocks, d, kv, rows, top = 9001, 32, 2, 15, 5
		m := mustMoBA(t, MoBAConfig{Heads: kv, HeadDim: d})
		means, q := matrix(1, blocks, kv*d), matrix(2, rows, d)
		for _, x := range [][]float32{means.Data, q.Data} {
			for i := range x {
				x[i] = float32(int(8 * x[i]))
			}
		}
		var g gates
		if err := g.pack(t.Context(), &m.engine, kv, top, means); err != nil {
			t.Fatal(err)
		}
		for h := range kv {
			var w gateWork
			got := make([]int32, rows*top)
			g.choose(nil, &w, q, h, got, func(i int) int { return blocks - rows + 1 + i })
			for i := range rows {
				scores := make([]float64, blocks-rows+1+i)
				for b := range scores {
					scores[b] = mattest.Dot(mat.Row(q, i), mat.Part(means, b, h*d, d))
				}
				want := topk.Select(nil, scores, top)
				if slices.Sort(want); !slices.Equal(got[i*top:][:top], want) {
					t.Fatalf("head %d, query %d: %v, want %v", h, i, got[i*top:][:top], want)
				}
			}
		}
	})
}

// TestMoBAManyChoices: tiles whose queries chose more blocks than there are between two looks at
// the context are done to their end.
func TestMoBAManyChoices(t *testing.T) {
	const n, d, most = 3000, 2, 40
	m := mustMoBA(t, MoBAConfig{Heads: 1, HeadDim: d, Block: 1, TopK: most})
	if rows := m.tileRows(n, n); rows*most < lookAfter {
		t.Fatalf("%d queries of %d blocks", rows, most)
	}
	x, dst := matrix(1, n, d), mat.New(n, d)
	for i := range dst.Data {
		dst.Data[i] = nan
	}
	if err := m.Forward(dst, x, x, x); err != nil {
		t.Fatal(err)
	}
	for i, y := range dst.Data {
		if y != y {
			t.Fatalf("element %d was not written", i)
		}
	}
}
