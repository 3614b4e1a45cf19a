package asm

import (
	"math"

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

// Sin sets dst[i] = sin(x[i]), x in radians. The error is below 2 ULP for
// every float32, however large. The sine of an infinity is NaN.
func Sin(dst, x []float32) {
	kernel.CheckInto("asm: Sin", dst, x)
	if tier := isa.Active(); tier != isa.Generic {
		if sinSIMD(tier, dst, x) > 0 { // arguments beyond scalar.SinLimit were left as they are
			for i, v := range dst {
				if v > scalar.SinLimit || v < -scalar.SinLimit {
					dst[i] = float32(math.Sin(float64(v)))
				}
			}
		}
		return
	}
	for i, v := range x {
		dst[i] = scalar.Sin(v)
	}
}

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

// ELUPlusOne sets dst[i] = elu(x[i]) + 1, which is x[i] + 1 for x[i] > 0 and
// exp(x[i]) otherwise: the feature map of linear attention (Katharopoulos et al.
// 2020). The error is below 1.1 ULP; below -87.33654 the result is 0.
func ELUPlusOne(dst, x []float32) {
	kernel.CheckInto("asm: ELUPlusOne", dst, x)
	if tier := isa.Active(); tier != isa.Generic {
		eluPlusOneSIMD(tier, dst, x)
		return
	}
	for i, v := range x {
		if v > 0 {
			dst[i] = v + 1
		} else {
			dst[i] = scalar.Exp(v)
		}
	}
}

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

// Softcap sets dst[i] = c tanh(x[i] / c), for c > 0: x, kept between -c and c, as
// the logits of Gemma 2 are. The error is below 4 ULP.
func Softcap(dst []float32, c float32, x []float32) {
	kernel.CheckInto("asm: Softcap", dst, x)
	if tier := isa.Active(); tier != isa.Generic {
		softcapSIMD(tier, dst, c, x)
		return
	}
	for i, v := range x {
		dst[i] = scalar.Softcap(v, c)
	}
}
