package asm

import (
	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/kernel/scalar"
)

// GELUTanh sets dst[i] to the tanh form of the Gaussian error linear unit
// (Hendrycks and Gimpel 2016), the one of GPT-2 and Hyena:
//
//	x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
//
// The error is below 3 ULP for x >= -1 and below 4e-5 of the result further
// down; below -10 the result is -0, at -Inf too.
func GELUTanh(dst, x []float32) {
	kernel.CheckInto("asm: GELUTanh", dst, x)
	if tier := isa.Active(); tier != isa.Generic {
		geluTanhSIMD(tier, dst, x)
		return
	}
	for i, v := range x {
		dst[i] = scalar.GELUTanh(v)
	}
}

// GELU sets dst[i] = x[i] Phi(x[i]), Phi the standard normal distribution
// function: the exact Gaussian error linear unit, x/2 (1 + erf(x / sqrt 2)).
// The error is below 6 ULP for x >= -5 and below 8 further down; below -13 the result is -0, at -Inf too.
func GELU(dst, x []float32) {
	kernel.CheckInto("asm: GELU", dst, x)
	if tier := isa.Active(); tier != isa.Generic {
		geluErfSIMD(tier, dst, x)
		return
	}
	for i, v := range x {
		dst[i] = scalar.GELU(v)
	}
}
