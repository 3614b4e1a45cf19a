package kernel

import "github.com/subquad/subquad/internal/isa"

// KeepAbove sets dst[i] = x[i], or 0 where it is at most thresholds[i]. NaN on either
// side keeps x[i].
func KeepAbove(dst, x, thresholds []float32) {
	CheckInto("kernel: KeepAbove", dst, x)
	CheckInto("kernel: KeepAbove", dst, thresholds)
	if tier := isa.Active(); tier != isa.Generic {
		keepAboveSIMD(tier, dst, x, thresholds)
		return
	}
	for i, v := range x {
		if v <= thresholds[i] {
			v = 0
		}
		dst[i] = v
	}
}
