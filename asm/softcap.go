package asm

import (
	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/kernel/scalar"
)

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
