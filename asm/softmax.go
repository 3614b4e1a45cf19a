package asm

import "github.com/subquad/subquad/internal/kernel"

// Softmax sets dst[i] = exp(x[i] - m) / sum over j of exp(x[j] - m), m the
// largest x, for one row. A row of nothing but -Inf (all masked) becomes 0; a
// row with NaN or +Inf becomes NaN.
func Softmax(dst, x []float32) {
	kernel.CheckInto("asm: Softmax", dst, x)
	sum := kernel.ExpSum(dst, x, Max(x))
	if sum == 0 {
		return // empty, or all -Inf: dst is already 0
	}
	Scale(dst, 1/sum, dst)
}
