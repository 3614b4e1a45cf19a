package asm

import (
	"math"

	"github.com/subquad/subquad/internal/isa"
)

// Sin sets dst[i] = sin(x[i]), x in radians. The error is below 2 ULP for
// every float32, however large. The sine of an infinity is NaN.
func Sin(dst, x []float32) {
	checkInto("Sin", dst, x)
	if tier := isa.Active(); tier != isa.Generic {
		if sinSIMD(tier, dst, x) > 0 { // arguments beyond sinLimit were left as they are
			for i, v := range dst {
				if v > sinLimit || v < -sinLimit {
					dst[i] = float32(math.Sin(float64(v)))
				}
			}
		}
		return
	}
	for i, v := range x {
		dst[i] = sin32(v)
	}
}

// sin32 is the portable body: sin(x) = (-1)^n sin(r) with n the integer nearest
// to x / pi. The kernels take n pi off x in three fused steps; here float64 does it.
func sin32(x float32) float32 {
	if !(x <= sinLimit && x >= -sinLimit) {
		return float32(math.Sin(float64(x)))
	}
	z := float32(x*invPi) + roundMagic
	n := float64(z - roundMagic)
	r64 := float64(x) - float64(n*float64(piHi))
	r64 -= float64(n * float64(piMid))
	r := float32(r64 - float64(n*float64(piLo)))
	s := r * r
	p := float32(sin11*s) + sin9
	p = float32(p*s) + sin7
	p = float32(p*s) + sin5
	p = float32(p*s) + sin3
	y := float32(float32(p*s)*r) + r
	return math.Float32frombits(math.Float32bits(y) ^ math.Float32bits(z)<<31)
}
