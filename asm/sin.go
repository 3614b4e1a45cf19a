package asm

import (
	"math"

	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/kernel/scalar"
)

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
