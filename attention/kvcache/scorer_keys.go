package kvcache

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// Knorm holds the tokens with the shortest keys (Devoto et al. 2024, arXiv 2406.11430):
// the score is -|k|.
type Knorm struct {
	// Budget is how many tokens a key head holds, Keep and Recent among them.
	Budget int
}

func (p Knorm) check(cfg *Config) error { return checkBudget("Knorm", p.Budget, cfg) }
func (p Knorm) rule(*Config) rule       { return rule{budget: p.Budget} }

func (Knorm) score(dst [][]float32, o *Observation) error {
	for g := range dst {
		k := o.Keys(g)
		for i := range dst[g] {
			dst[g][i] = -norm(mat.Row(k, i))
		}
	}
	return nil
}

func norm(x []float32) float32 { return float32(math.Sqrt(float64(asm.Dot(x, x)))) }

// KeyDiff holds the tokens whose keys are least like the others (Park et al. 2025, arXiv
// 2504.15364): the score is minus the cosine between a key and the mean of all keys, each
// first made of length 1.
type KeyDiff struct {
	// Budget is how many tokens a key head holds, Keep and Recent among them.
	Budget int
}

func (p KeyDiff) check(cfg *Config) error { return checkBudget("KeyDiff", p.Budget, cfg) }
func (p KeyDiff) rule(*Config) rule       { return rule{budget: p.Budget} }

func (KeyDiff) score(dst [][]float32, o *Observation) error {
	for g := range dst {
		k := o.Keys(g)
		anchor := o.vector(k.Cols)
		for i := range k.Rows {
			if n := norm(mat.Row(k, i)); n > 0 {
				asm.Axpy(anchor, 1/(n*float32(k.Rows)), mat.Row(k, i))
			}
		}
		for i := range dst[g] {
			dst[g][i] = -asm.Cosine(mat.Row(k, i), anchor)
		}
	}
	return nil
}

// LagKV scores a stretch of tokens by the next one (Liang et al. 2025, arXiv 2504.04704):
// the features of keys and of values are put on the scale from the least to the largest
// of the next stretch, the score of a token is the softmax over its stretch of the
// standard deviation over features, the mean for keys and values, and of that the rank
// within the stretch. The first Keep tokens and the last stretch stay.
type LagKV struct {
	// Budget is how many tokens a key head holds, Keep and Recent among them.
	Budget int
	// Lag is how many tokens a stretch has; 0 stands for 128. Keep is how many first
	// tokens stay, nil for 4.
	Lag  int
	Keep *int
}

func (p LagKV) lag() int {
	if p.Lag == 0 {
		return 128
	}
	return p.Lag
}

// sinkTokens is how many first tokens of several published scorers stay.
const sinkTokens = 4

func sinksOf(n *int) int {
	if n == nil {
		return sinkTokens
	}
	return *n
}

func (p LagKV) check(cfg *Config) error {
	if p.Lag < 0 || p.lag() > 1<<20 || sinksOf(p.Keep) < 0 || sinksOf(p.Keep) > 1<<20 {
		return check.Errorf(ErrConfig, "kvcache: LagKV.Lag is %d and Keep %d, want 0 to 2^20", p.Lag, sinksOf(p.Keep))
	}
	return checkBudget("LagKV", p.Budget, cfg)
}

func (p LagKV) rule(*Config) rule { return rule{budget: p.Budget} }

func (p LagKV) describe() string {
	return describe(struct{ Budget, Lag, Sinks int }{p.Budget, p.lag(), sinksOf(p.Keep)}) + "LagKV"
}

func (p LagKV) score(dst [][]float32, o *Observation) error {
	lag, sinks := p.lag(), sinksOf(p.Keep)
	for g, x := range dst {
		for i := range x {
			x[i] = 1
		}
		if len(x) < sinks+2*lag {
			for i := sinks; i < len(x); i++ {
				x[i] = float32(i-sinks) / float32(len(x)-sinks)
			}
			continue
		}
		k, v := o.Keys(g), o.Values(g)
		a, b := o.vector(lag), o.vector(lag)
		m := o.room()
		for at := sinks; at+2*lag <= len(x); at += lag {
			o.lagScores(a, mat.Rows(k, at, at+lag), mat.Rows(k, at+lag, at+2*lag))
			o.lagScores(b, mat.Rows(v, at, at+lag), mat.Rows(v, at+lag, at+2*lag))
			asm.Add(a, a, b)
			m.ranks = scratch.Sized(m.ranks, lag)
			order := m.ranks
			for i := range order {
				order[i] = i
			}
			slices.SortStableFunc(order, func(i, j int) int {
				switch {
				case a[i] < a[j]:
					return -1
				case a[i] > a[j]:
					return 1
				}
				return 0
			})
			for rank, i := range order {
				x[at+i] = float32(rank) / float32(lag)
			}
		}
	}
	return nil
}

// lagScores sets dst to the softmax of the standard deviations of rows on the scale of the
// rows that come next.
func (o *Observation) lagScores(dst []float32, x, next blas32.General) {
	floats, doubles := o.taken()
	defer o.release(floats, doubles)
	low, high := o.copied(mat.Row(next, 0)), o.copied(mat.Row(next, 0))
	row := o.double(x.Cols)
	for i := range next.Rows {
		for j, v := range mat.Row(next, i) {
			low[j], high[j] = min(low[j], v), max(high[j], v)
		}
	}
	for i := range dst {
		var sum, square float64
		for j, v := range mat.Row(x, i) {
			row[j] = float64(v-low[j]) / float64(high[j]-low[j])
			sum += row[j]
		}
		mean := sum / float64(len(row))
		for _, v := range row {
			square += (v - mean) * (v - mean)
		}
		dst[i] = float32(math.Sqrt(square / float64(len(row)-1)))
	}
	asm.Softmax(dst, dst)
}
