package kernel

import (
	"encoding/binary"

	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/kernel/scalar"
)

// WidenBFloat16 sets dst to the bfloat16 numbers of x, two little-endian bytes each.
func WidenBFloat16(dst []float32, x []byte) {
	CheckLen("kernel: WidenBFloat16", "x", len(x), 2*len(dst))
	at := 0
	if tier := isa.Active(); tier != isa.Generic {
		for ; len(dst)-at >= widenStep; at += widenStep {
			widenBFloat16SIMD(tier, widenStep, &dst[at], &x[2*at])
		}
		if n := (len(dst) - at) &^ 15; n > 0 {
			widenBFloat16SIMD(tier, n, &dst[at], &x[2*at])
			at += n
		}
	}
	for ; at < len(dst); at++ {
		dst[at] = scalar.BFloat16Of(binary.LittleEndian.Uint16(x[2*at:]))
	}
}

// WidenFloat16 sets dst to the float16 numbers of x, two little-endian bytes each. A NaN
// is one.
func WidenFloat16(dst []float32, x []byte) {
	CheckLen("kernel: WidenFloat16", "x", len(x), 2*len(dst))
	at := 0
	if tier := isa.Active(); tier != isa.Generic {
		for ; len(dst)-at >= widenStep; at += widenStep {
			widenFloat16SIMD(tier, widenStep, &dst[at], &x[2*at])
		}
		if n := (len(dst) - at) &^ 15; n > 0 {
			widenFloat16SIMD(tier, n, &dst[at], &x[2*at])
			at += n
		}
	}
	for ; at < len(dst); at++ {
		dst[at] = scalar.Float16Of(binary.LittleEndian.Uint16(x[2*at:]))
	}
}

// widenStep is how many numbers one call widens: 64 KiB of them.
const widenStep = 16 << 10
