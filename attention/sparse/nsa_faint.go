package sparse

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// faint is below what scores of blocks may have vanished, of logits so far apart that float32
// does not hold the weights of all blocks that are to be chosen.
const faint = 1e-30

// faintScores is the memory for scores that float32 does not hold.
type faintScores struct {
	logits   []float32
	top, sum []float64 // of blocks: the largest logarithm of a weight, and the sum of weights over its exponential
}

// clearUp replaces faint scores by their logarithms, which go after the others and are in
// order among themselves. scores are those of the blocks before a query's own, q [heads,
// HeadDim] what scale makes its queries of, keys the compressed keys that it sees.
func (f *faintScores) clearUp(cfg *NSAConfig, scores []float32, q blas32.General, scale float32, keys blas32.General) {
	f.logits = scratch.Sized(f.logits, keys.Rows)
	f.top, f.sum = scratch.Sized(f.top, len(scores)), scratch.Sized(f.sum, len(scores))
	for b := range f.top {
		f.top[b], f.sum[b] = math.Inf(-1), 0
	}
	for h := range q.Rows {
		f.add(cfg, mat.Row(q, h), scale, keys)
	}
	for b, s := range scores {
		if s < faint {
			scores[b] = float32(f.top[b] + math.Log(f.sum[b]))
		}
	}
}

// add adds the weights of a query head.
func (f *faintScores) add(cfg *NSAConfig, q []float32, scale float32, keys blas32.General) {
	top, sum := math.Inf(-1), 0.0
	for c := range f.logits {
		f.logits[c] = asm.Dot(q, mat.Row(keys, c)) * scale
		top = max(top, float64(f.logits[c]))
	}
	for _, x := range f.logits {
		sum += math.Exp(float64(x) - top)
	}
	all := top + math.Log(sum)
	each, long := cfg.Block/cfg.Stride, cfg.Compress/cfg.Stride // strides in a block and a compressed key
	for c, x := range f.logits {
		weight := float64(x) - all
		for piece := range long {
			b := (c + piece) / each
			if b >= len(f.top) || math.IsInf(weight, -1) {
				break
			}
			if weight > f.top[b] {
				f.sum[b] *= math.Exp(f.top[b] - weight)
				f.top[b] = weight
			}
			f.sum[b] += math.Exp(weight - f.top[b])
		}
	}
}
