package asm

import (
	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/kernel/scalar"
)

// Exp sets dst[i] = exp(x[i]). The error is below 1.1 ULP. Above 88.72284 the
// result is +Inf, below -87.33654 (where it would be subnormal) it is 0.
func Exp(dst, x []float32) {
	kernel.CheckInto("asm: Exp", dst, x)
	if tier := isa.Active(); tier != isa.Generic {
		expSIMD(tier, dst, x)
		return
	}
	for i, v := range x {
		dst[i] = scalar.Exp(v)
	}
}
