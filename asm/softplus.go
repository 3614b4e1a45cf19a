package asm

import (
	"math"

	"github.com/subquad/subquad/internal/isa"
)

// Softplus sets dst[i] = log(1 + exp(x[i])). The error is below 4 ULP. Below
// -87.33654 the result is 0.
func Softplus(dst, x []float32) {
	checkInto("Softplus", dst, x)
	if tier := isa.Active(); tier != isa.Generic {
		softplusSIMD(tier, dst, x)
		return
	}
	for i, v := range x {
		dst[i] = softplus32(v)
	}
}

// softplus32 is the portable body: max(x, 0) + log(1 + e) with e = exp(-|x|),
// log(1 + e) = 2 atanh(s), s = e / (2 + e).
func softplus32(x float32) float32 {
	e := exp32(-float32(math.Abs(float64(x))))
	s := e / (e + 2)
	s2 := s * s
	p := float32(log11*s2) + log9
	p = float32(p*s2) + log7
	p = float32(p*s2) + log5
	p = float32(p*s2) + log3
	p = float32(p*s2) + 2
	if x < 0 {
		return p * s
	}
	return float32(p*s) + x // NaN comes here
}
