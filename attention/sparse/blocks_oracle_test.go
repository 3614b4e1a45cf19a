package sparse

import (
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/mat/mattest"
)

var (
	matrix   = mattest.Matrix
	near     = mattest.Near
	sameBits = mattest.SameBits
)

// dense is softmax attention in float64 of one sequence, with a mask: sees tells whether a
// query head sees a key.
func dense(q, k, v blas32.General, heads, kvHeads int, scale float32, weight func(head, j int) float64, sees func(head, i, j int) bool) (out, lse [][]float64) {
	d, dv := q.Cols/heads, v.Cols/kvHeads
	for i := range q.Rows {
		row, sums := make([]float64, heads*dv), make([]float64, heads)
		for h := range heads {
			g := h / (heads / kvHeads)
			top, logits := math.Inf(-1), make([]float64, k.Rows)
			for j := range logits {
				logits[j] = math.Inf(-1)
				if sees(h, i, j) {
					logits[j] = mattest.Dot(mat.Part(q, i, h*d, d), mat.Part(k, j, g*d, d))*float64(scale) + weight(g, j)
				}
				top = max(top, logits[j])
			}
			sum := 0.0
			for j, x := range logits {
				if !math.IsInf(x, -1) {
					p := math.Exp(x - top)
					sum += p
					for c, y := range mat.Part(v, j, g*dv, dv) {
						row[h*dv+c] += p * float64(y)
					}
				}
			}
			for c := range dv {
				if sum > 0 {
					row[h*dv+c] /= sum
				}
			}
			sums[h] = top + math.Log(sum)
			if sum == 0 {
				sums[h] = math.Inf(-1)
			}
		}
		out, lse = append(out, row), append(lse, sums)
	}
	return out, lse
}

// randomChoice is lists of blocks with a probability, that may be empty, for sequences.
func randomChoice(r *rand.Rand, heads int, queryBlocks, keyBlocks []int) *Choice {
	c := &Choice{Heads: heads, Offsets: []int{0}}
	for s, n := range queryBlocks {
		for range n * heads {
			p := []float64{0, 0.1, 0.5, 1}[r.IntN(4)]
			for x := range keyBlocks[s] {
				if r.Float64() < p {
					c.Blocks = append(c.Blocks, int32(x))
				}
			}
			c.close()
		}
	}
	return c
}

func mustBlocks(t testing.TB, cfg BlocksConfig) *Blocks {
	t.Helper()
	b, err := NewBlocks(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
