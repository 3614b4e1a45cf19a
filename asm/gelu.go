package asm

import (
	"math"

	"github.com/subquad/subquad/internal/isa"
)

// GELUTanh sets dst[i] to the tanh form of the Gaussian error linear unit
// (Hendrycks and Gimpel 2016), the one of GPT-2 and Hyena:
//
//	x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
//
// The error is below 3 ULP for x >= -1 and below 4e-5 of the result further
// down; below -10 the result is -0, at -Inf too.
func GELUTanh(dst, x []float32) {
	checkInto("GELUTanh", dst, x)
	if tier := isa.Active(); tier != isa.Generic {
		geluTanhSIMD(tier, dst, x)
		return
	}
	for i, v := range x {
		v = max(v, -normalLimit) // max keeps NaN
		t := float32(float32(v*v)*gelu3) + gelu1
		dst[i] = v / (1 + exp32(float32(t*-v)))
	}
}

// GELU sets dst[i] = x[i] Phi(x[i]), Phi the standard normal distribution
// function: the exact Gaussian error linear unit, x/2 (1 + erf(x / sqrt 2)).
// The error is below 6 ULP for x >= -5 and below 8 further down; below -13 the result is -0, at -Inf too.
func GELU(dst, x []float32) {
	checkInto("GELU", dst, x)
	if tier := isa.Active(); tier != isa.Generic {
		geluErfSIMD(tier, dst, x)
		return
	}
	for i, v := range x {
		dst[i] = gelu32(v)
	}
}

// gelu32 is the portable body. Phi(-a) = exp(-a^2/2) t P(1-t) with t = 1 / (1 + c a);
// the rounding error of a^2 would be magnified by the exponential and is made good.
func gelu32(x float32) float32 {
	x = max(x, -normalLimit)
	a := min(float32(math.Abs(float64(x))), normalLimit)
	h := a * a
	low := float32(float64(a)*float64(a) - float64(h))
	e := exp32(-0.5*h) * (float32(-0.5*low) + 1)
	ca := float32(tailScale * a)
	t := 1 / (ca + 1)
	u := ca * t
	p := float32(tail10)
	for _, c := range [...]float32{tail9, tail8, tail7, tail6, tail5, tail4, tail3, tail2, tail1, 0.5} {
		p = float32(p*u) + c
	}
	tail := float32(p*t) * e
	if x < 0 {
		return x * tail
	}
	return x * (1 - tail)
}
