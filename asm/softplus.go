package asm

import (
	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/kernel/scalar"
)

// Softplus sets dst[i] = log(1 + exp(x[i])). The error is below 4 ULP. Below
// -87.33654 the result is 0.
func Softplus(dst, x []float32) {
	kernel.CheckInto("asm: Softplus", dst, x)
	if tier := isa.Active(); tier != isa.Generic {
		softplusSIMD(tier, dst, x)
		return
	}
	for i, v := range x {
		dst[i] = scalar.Softplus(v)
	}
}
