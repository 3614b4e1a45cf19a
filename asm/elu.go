package asm

import (
	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/kernel/scalar"
)

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
