package asm

import (
	"math"

	"github.com/subquad/subquad/internal/isa"
)

// Softmax sets dst[i] = exp(x[i] - m) / sum over j of exp(x[j] - m), m the
// largest x, for one row. A row of nothing but -Inf (all masked) becomes 0; a
// row with NaN or +Inf becomes NaN.
func Softmax(dst, x []float32) {
	sum := ExpSum(dst, x, Max(x))
	if sum == 0 {
		return // empty, or all -Inf: dst is already 0
	}
	Scale(dst, 1/sum, dst)
}

// ExpSum sets dst[i] = exp(x[i] - max) and returns the sum of dst; max must not
// be less than any x[i]. It is the middle of Softmax, for those who know the
// maximum or put rows together from pieces. Where max is -Inf dst is 0.
func ExpSum(dst, x []float32, max float32) float32 {
	checkInto("ExpSum", dst, x)
	if math.IsInf(float64(max), -1) {
		clear(dst)
		return 0
	}
	if tier := isa.Active(); tier != isa.Generic {
		return expSumSIMD(tier, dst, x, max)
	}
	var sum float64
	for i, v := range x {
		dst[i] = exp32(v - max)
		sum += float64(dst[i])
	}
	return float32(sum)
}
