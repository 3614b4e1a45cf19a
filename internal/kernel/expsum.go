package kernel

import (
	"math"

	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/kernel/scalar"
)

// ExpSum sets dst[i] = exp(x[i] - max) and returns the sum of dst; max must not
// be less than any x[i]. It is the middle of Softmax, for those who know the
// maximum or put rows together from pieces. Where max is -Inf dst is 0.
func ExpSum(dst, x []float32, max float32) float32 {
	CheckInto("kernel: ExpSum", dst, x)
	if math.IsInf(float64(max), -1) {
		clear(dst)
		return 0
	}
	if tier := isa.Active(); tier != isa.Generic {
		return expSumSIMD(tier, dst, x, max)
	}
	var sum float64
	for i, v := range x {
		dst[i] = scalar.Exp(v - max)
		sum += float64(dst[i])
	}
	return float32(sum)
}
