package scalar

import "math"

// Float16Bits rounds to the nearest float16, ties to even. A number of 65520
// or more in magnitude becomes infinite, a NaN stays one.
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

// Float16Of returns the number that the bits of a float16 stand for.
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
func BFloat16Bits(x float32) uint16 {
	bits := math.Float32bits(x)
	if x != x {
		return uint16(bits>>16) | 0x40 // keep it a NaN
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

// BFloat16Of returns the number that the bits of a bfloat16 stand for.
func BFloat16Of(bits uint16) float32 { return math.Float32frombits(uint32(bits) << 16) }

// Largest returns the largest magnitude of x, or NaN where one is: magnitudes are in the order of
// their bits.
func Largest(x []float32) float32 {
	most := uint32(0)
	for _, v := range x {
		most = max(most, math.Float32bits(v)&^(1<<31))
	}
	return math.Float32frombits(most)
}

// Quantize returns v / scale rounded to the nearest integer, ties to even, between
// -127 and 127; NaN becomes -127. A scale of 0 gives 0.
func Quantize(v, scale float32) int8 {
	if scale == 0 {
		return 0
	}
	q := math.RoundToEven(float64(v) / float64(scale))
	if !(q >= -127) { // NaN too
		return -127
	}
	return int8(min(q, 127))
}
