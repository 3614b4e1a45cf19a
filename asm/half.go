package asm

import (
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/kernel/scalar"
)

// Float16Bits rounds to the nearest float16, ties to even. A number of 65520
// or more in magnitude becomes infinite, a NaN stays one.
func Float16Bits(x float32) uint16 { return scalar.Float16Bits(x) }

// Float16Of returns the number that the bits of a float16 stand for.
func Float16Of(bits uint16) float32 { return scalar.Float16Of(bits) }

// BFloat16Bits rounds to the nearest bfloat16, ties to even; a NaN stays one.
func BFloat16Bits(x float32) uint16 { return scalar.BFloat16Bits(x) }

// BFloat16Of returns the number that the bits of a bfloat16 stand for.
func BFloat16Of(bits uint16) float32 { return scalar.BFloat16Of(bits) }

// QuantizeInt8 sets dst[i] = round(x[i] / scale), ties to even, and returns scale =
// max |x| / 127, as a float32: the symmetric form without a zero point. A row of
// zeros has scale 0; with NaN or Inf in it the scale is that, and so every
// element read back.
func QuantizeInt8(dst []int8, x []float32) (scale float32) {
	kernel.CheckLen("asm: QuantizeInt8", "dst", len(dst), len(x))
	scale = scalar.Largest(x) / 127
	for i, v := range x {
		dst[i] = scalar.Quantize(v, scale)
		if dst[i] == 0 && scale-scale != 0 {
			dst[i] = 1
		}
	}
	return scale
}
