package scalar

import "math"

// Flushed returns x, or a zero of its sign for a subnormal.
func Flushed(x float32) float32 {
	const smallest = 0x1p-126
	if x < smallest && x > -smallest {
		return float32(math.Copysign(0, float64(x)))
	}
	return x
}

// FusedFlushed returns x*y + s rounded once, or a zero of its sign where that is subnormal, for
// x and y of bfloat16, none of them and not s subnormal. The sum in float64 is not always exact,
// but always near enough: what it loses is far from a midpoint of float32.
func FusedFlushed(x, y, s float32) float32 {
	z := float64(s) + float64(x)*float64(y)
	// What a float32 of any exponent would round to 2^-126 is not subnormal.
	const smallest = 0x1p-126 - 0x1p-151
	if z < smallest && z > -smallest {
		return float32(math.Copysign(0, z))
	}
	return float32(z)
}

// BFloat16Finite tells whether a bfloat16 is neither NaN nor an infinity.
func BFloat16Finite(bits uint16) bool { return bits&0x7f80 != 0x7f80 }

// Split sets parts to bfloat16 that sum to nearly x: the nearest one, the nearest to what
// is left, and so on. What is left after one part is at most 2^-8 of x, after two 2^-17,
// and after three nothing. Subnormal numbers count as zeros, in x and in what is left of it.
//
// The parts of an x that rounds to an infinite bfloat16, from 3.396e38 on, sum to NaN if there is
// more than one.
func Split(parts []uint16, x float32) {
	for i := range parts {
		parts[i] = BFloat16Bits(Flushed(x))
		x -= BFloat16Of(parts[i])
	}
}

// Join returns the sum of parts.
func Join(parts []uint16) (x float32) {
	for i := len(parts) - 1; i >= 0; i-- {
		x += BFloat16Of(parts[i])
	}
	return x
}
