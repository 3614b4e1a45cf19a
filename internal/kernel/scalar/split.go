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

// Split sets parts to bfloat16 that sum to nearly x: the nearest one, the nearest to what
// is left, and so on. What is left after one part is at most 2^-8 of x, after two 2^-17,
// and after three nothing. Subnormal numbers count as zeros, in x and in what is left of it.
//
// An x that rounds to an infinite bfloat16, from 3.396e38 on, has a part that is NaN.
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
