package attention

import (
	"context"
	"math"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"
)

// TestStats feeds a sequence whole and in pieces: the same statistics.
func TestStats(t *testing.T) {
	const n, heads, kvHeads, d = 90, 4, 2, 8
	a := must(t, Config{Heads: heads, KVHeads: kvHeads, HeadDim: d, Causal: true})
	q, k, v := matrix(1, n, heads*d), matrix(2, n, kvHeads*d), matrix(3, n, kvHeads*d)
	for i := range d { // head 0's queries all like key 0
		for j := range n {
			q.Data[j*q.Cols+i] = 3
		}
		k.Data[i] = 3
	}
	feed := func(s *Stats, cuts ...int) {
		from := 0
		for _, to := range cuts {
			c := &Call{Q: part(q, from, to), K: []blas32.General{part(k, 0, to)}, V: []blas32.General{part(v, 0, to)}, Stats: s}
			c.Dst = matrix(4, to-from, heads*d)
			if err := a.Run(context.Background(), c); err != nil {
				t.Fatal(err)
			}
			from = to
		}
	}
	same := func(what string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > 1e-5*(1+want) {
			t.Errorf("%s is %v in pieces, %v whole", what, got, want)
		}
	}
	var whole, pieces Stats
	feed(&whole, n)
	feed(&pieces, 1, 33, 34, n)
	for range 2 {
		if pieces.Queries != n || whole.Queries != n {
			t.Errorf("%d and %d queries, want %d", whole.Queries, pieces.Queries, n)
		}
		for h := range heads {
			same("an entropy", pieces.MeanEntropy(h), whole.MeanEntropy(h))
			total := 0.0
			for j := range n {
				same("alpha", pieces.Alpha(h, j), whole.Alpha(h, j))
				total += whole.Mass[h][j]
			}
			same("the mass of all keys", total, n)
			if dormant := whole.Dormant(h, 0.3); dormant != (h == 0) {
				t.Errorf("head %d is dormant: %v", h, dormant)
			}
		}
		for g := range kvHeads {
			for j := range n {
				same("a value's norm", pieces.ValueNorm[g][j], whole.ValueNorm[g][j])
			}
		}
		pieces.Reset()
		feed(&pieces, 50, n)
	}
}
