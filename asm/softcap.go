package asm

import (
	"math"

	"github.com/subquad/subquad/internal/isa"
)

// Softcap sets dst[i] = c tanh(x[i] / c), for c > 0: x, kept between -c and c, as
// the logits of Gemma 2 are. The error is below 4 ULP.
func Softcap(dst []float32, c float32, x []float32) {
	checkInto("Softcap", dst, x)
	if tier := isa.Active(); tier != isa.Generic {
		softcapSIMD(tier, dst, c, x)
		return
	}
	for i, v := range x {
		a := float32(math.Abs(float64(v))) / c
		var t float32
		if a < tanhLimit {
			a2 := float32(a * a)
			p := float32(tanh11*a2) + tanh9
			p = float32(p*a2) + tanh7
			p = float32(p*a2) + tanh5
			p = float32(p*a2) + tanh3
			t = float32(float32(p*a2)*a) + a
		} else {
			e := exp32(-2 * a)
			t = (1 - e) / (1 + e)
		}
		dst[i] = float32(math.Copysign(float64(float32(t*c)), float64(v)))
	}
}
