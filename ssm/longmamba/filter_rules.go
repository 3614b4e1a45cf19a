package longmamba

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/topk"
)

// Apply filters the steps dt [n, channels] of a whole prompt of a block, in place, by
// any method. NaN is kept. It costs n log n for each channel where steps are ranked;
// equal steps are kept in the order of their tokens.
//
// ssm.RecordSteps and ssm.ReplaySteps bring steps out of a block and into it. Errors match
// ErrConfig or ErrShape.
func (f *Filter) Apply(block int, dt blas32.General) error {
	if err := f.cal.checkBlock(block); err != nil {
		return err
	}
	b, n := &f.blocks[block], dt.Rows
	if err := check.Matrix(ErrShape, "longmamba", "dt", dt, -1, len(b.global), "the table's channels"); err != nil {
		return err
	}
	context := n - f.cfg.Response // rows that are filtered
	if n < f.cfg.From || context <= 0 || !b.any {
		return nil
	}
	row := f.cal.row(n)
	if f.cfg.Method.causal() {
		for t := range context {
			f.changeToken(b, row, n, 0, mat.Row(dt, t))
		}
		return nil
	}
	if f.cfg.Method == TopNormTokens {
		keepTokens(dt, b.global, context, largest(norms(dt, b.global, context), f.cfg.TopK))
		return nil
	}
	table := &f.cal.Tables[block]
	steps := make([]float64, n)
	for channel, global := range b.global {
		if !global {
			continue
		}
		for t := range n {
			steps[t] = float64(mat.Row(dt, t)[channel])
		}
		f.applyRule(steps, context, table.Alpha[row][channel]*float32(f.cfg.Scale), table.DtSum[channel]*f.cfg.Scale)
		for t := range context {
			mat.Row(dt, t)[channel] = float32(steps[t])
		}
	}
	return nil
}

// applyRule filters the steps of a channel. Those after context are looked at where the
// official code does so, and Apply leaves them as they are.
func (f *Filter) applyRule(steps []float64, context int, alpha float32, sum float64) {
	switch f.cfg.Method {
	case ByRank:
		keepFirst(steps[:context], share(alpha, context))
	case ByOwnThreshold:
		atLeast(steps, ownThreshold(steps, context, alpha))
	case ByBound:
		k, total := 0, 0.0
		for _, v := range sorted(steps) {
			if total += v; total > sum {
				break
			}
			k++
		}
		keepFirst(steps, float64(k))
	case Normalized:
		var total float64
		for _, v := range steps {
			total += v
		}
		if total > 0 {
			for i := range steps {
				steps[i] *= sum / total
			}
		}
	case TopTokens:
		k := min(f.cfg.TopK, context)
		above(steps[:context], quantile(sorted(steps[:context]), float64(k)/float64(context)))
	}
}

// share returns how many steps of a context a fraction is, in float32 as in the
// official code: 0.95 of 40 are 38.
func share(alpha float32, context int) float64 { return float64(float32(alpha * float32(context))) }

// ownThreshold returns the largest of the steps but the fraction alpha of a context,
// 0 where there is none.
func ownThreshold(steps []float64, context int, alpha float32) float64 {
	k := share(alpha, context)
	if k >= float64(context) {
		return 0
	}
	return sorted(steps)[int(k)]
}

// sorted returns the steps, the largest first.
func sorted(steps []float64) []float64 {
	out := slices.Clone(steps)
	slices.SortFunc(out, descending)
	return out
}

// descending orders NaN before all numbers, so that it is kept.
func descending(a, b float64) int {
	switch {
	case a == b || math.IsNaN(a) && math.IsNaN(b):
		return 0
	case a > b || math.IsNaN(a):
		return -1
	}
	return 1
}

// first moves the indices of the k largest elements to the front of order, which has
// those of all: the earlier of equals, and NaN before all numbers.
func first(order []int, x []float64, k int) []int {
	return topk.First(order, k, func(i, j int) int {
		if c := descending(x[i], x[j]); c != 0 {
			return c
		}
		return i - j
	})
}

// indices returns 0 to n-1.
func indices(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// keepFirst clears all steps but the largest, those of a rank, from 0, below k.
func keepFirst(steps []float64, k float64) {
	kept := 0 // where k is NaN, too
	if k > 0 {
		kept = int(math.Ceil(min(k, float64(len(steps)))))
	}
	order := indices(len(steps))
	first(order, steps, kept)
	for _, i := range order[kept:] {
		steps[i] = 0
	}
}

func atLeast(steps []float64, least float64) {
	for i, v := range steps {
		if v < least {
			steps[i] = 0
		}
	}
}

func above(steps []float64, threshold float64) {
	for i, v := range steps {
		if v <= threshold {
			steps[i] = 0
		}
	}
}

// quantile returns what a fraction of the steps, the largest first, are above, by
// linear interpolation.
func quantile(sorted []float64, fraction float64) float64 {
	at := (1 - fraction) * float64(len(sorted)-1) // from the smallest
	low := min(int(at), len(sorted)-1)
	high := min(low+1, len(sorted)-1)
	last := len(sorted) - 1
	return sorted[last-low] + (at-float64(low))*(sorted[last-high]-sorted[last-low])
}

// norms returns the Euclidean norms of the steps of tokens, over the channels that
// global tells, or all where it is nil.
func norms(dt blas32.General, global []bool, tokens int) []float64 {
	out := make([]float64, tokens)
	for t := range out {
		for i, v := range mat.Row(dt, t) {
			if global == nil || global[i] {
				out[t] += float64(v) * float64(v)
			}
		}
		out[t] = math.Sqrt(out[t])
	}
	return out
}

// largest returns the indices of the k largest elements, ascending.
func largest(x []float64, k int) []int {
	order := first(indices(len(x)), x, k)
	slices.Sort(order)
	return order
}

// keepTokens clears, in the channels that global tells, the steps of a context's
// tokens but those kept, which ascend.
func keepTokens(dt blas32.General, global []bool, context int, kept []int) {
	for t := range context {
		if len(kept) > 0 && kept[0] == t {
			kept = kept[1:]
			continue
		}
		for i, row := 0, mat.Row(dt, t); i < len(row); i++ {
			if global[i] {
				row[i] = 0
			}
		}
	}
}
