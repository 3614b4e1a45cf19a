package asm

import "math"

// Float16Bits rounds to the nearest float16, ties to even; what is too large
// becomes infinite, a NaN stays one.
func Float16Bits(x float32) uint16 {
	bits := math.Float32bits(x)
	sign := uint16(bits >> 16 & 0x8000)
	magnitude := bits & 0x7fffffff
	switch {
	case magnitude > 0x7f800000:
		return sign | 0x7e00
	case magnitude >= 0x477ff000: // 65520, half way to 2^16
		return sign | 0x7c00
	case magnitude < 0x38800000: // subnormal: in units of 2^-24
		n := math.RoundToEven(float64(math.Float32frombits(magnitude)) * (1 << 24))
		return sign | uint16(n)
	}
	return sign | uint16((magnitude-0x38000000+0xfff+magnitude>>13&1)>>13)
}

// Float16Of is the number that bits of a float16 stand for.
func Float16Of(bits uint16) float32 {
	sign, magnitude := uint32(bits&0x8000)<<16, uint32(bits&0x7fff)
	switch {
	case magnitude >= 0x7c00:
		return math.Float32frombits(sign | 0x7f800000 | magnitude&0x3ff<<13)
	case magnitude < 0x400:
		return math.Float32frombits(sign | math.Float32bits(float32(magnitude)/(1<<24)))
	}
	return math.Float32frombits(sign | magnitude<<13 + 0x38000000)
}

// BFloat16Bits rounds to the nearest bfloat16, ties to even; a NaN stays one.
func BFloat16Bits(x float32) uint16 { return roundBFloat16(x) }

// BFloat16Of is the number that bits of a bfloat16 stand for.
func BFloat16Of(bits uint16) float32 { return math.Float32frombits(uint32(bits) << 16) }

// QuantizeInt8 sets dst[i] = round(x[i] / scale), ties to even, and returns scale =
// max |x| / 127, as a float32: the symmetric form without a zero point. A row of
// zeros has scale 0; with NaN or Inf in it the scale is that, and so every
// element read back.
func QuantizeInt8(dst []int8, x []float32) (scale float32) {
	checkLen("QuantizeInt8", "dst", len(dst), len(x))
	for _, v := range x {
		scale = max(scale, float32(math.Abs(float64(v)))) // keeps NaN
	}
	scale /= 127
	for i, v := range x {
		dst[i] = quantize(v, scale)
		if dst[i] == 0 && scale-scale != 0 {
			dst[i] = 1
		}
	}
	return scale
}
