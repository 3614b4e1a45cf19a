package kernel

import (
	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/kernel/scalar"
	"github.com/subquad/subquad/internal/mat"
)

// CosSin sets cos[i] and sin[i] to factor times the cosine and the sine of
// 2 pi phase[i] / 2^32: a phase is a fraction of a turn, and wraps around as
// an integer does. The error is below 1.2e-7 with a factor of 1 and below 2e-7
// times any other.
func CosSin(cos, sin []float32, phase []uint32, factor float32) {
	const op = "kernel: CosSin"
	CheckLen(op, "cos", len(cos), len(phase))
	CheckLen(op, "sin", len(sin), len(phase))
	if mat.OverlapVectors(cos, sin) {
		Panicf("%s: cos overlaps sin", op)
	}
	if tier := isa.Active(); tier != isa.Generic {
		for len(phase) > 0 {
			n := min(len(phase), Chunk)
			cosSinSIMD(tier, &cos[0], &sin[0], &phase[0], n, factor)
			cos, sin, phase = cos[n:], sin[n:], phase[n:]
		}
		return
	}
	for i, p := range phase {
		c, s := scalar.CosSin(p)
		cos[i], sin[i] = c*factor, s*factor
	}
}
