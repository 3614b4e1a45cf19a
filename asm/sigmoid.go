package asm

import (
	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/kernel/scalar"
)

// Sigmoid sets dst[i] = 1 / (1 + exp(-x[i])). The error is below 2.5 ULP; below
// -88.7 the result is 0.
func Sigmoid(dst, x []float32) {
	kernel.CheckInto("asm: Sigmoid", dst, x)
	if tier := isa.Active(); tier != isa.Generic {
		sigmoidSIMD(tier, dst, x)
		return
	}
	for i, v := range x {
		dst[i] = 1 / (1 + scalar.Exp(-v))
	}
}

// SiLU sets dst[i] = x[i] / (1 + exp(-x[i])), the sigmoid-weighted linear unit
// (swish). The error is below 2.5 ULP; below -88.7, at -Inf too, the result is -0.
func SiLU(dst, x []float32) {
	kernel.CheckInto("asm: SiLU", dst, x)
	if tier := isa.Active(); tier != isa.Generic {
		siluSIMD(tier, dst, x)
		return
	}
	for i, v := range x {
		dst[i] = scalar.SiLU(v)
	}
}
