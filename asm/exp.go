package asm

import (
	"math"

	"github.com/subquad/subquad/internal/isa"
)

// Exp sets dst[i] = exp(x[i]). The error is below 1.1 ULP. Above 88.72284 the
// result is +Inf, below -87.33654 (where it would be subnormal) it is 0.
func Exp(dst, x []float32) {
	checkInto("Exp", dst, x)
	if tier := isa.Active(); tier != isa.Generic {
		expSIMD(tier, dst, x)
		return
	}
	for i, v := range x {
		dst[i] = exp32(v)
	}
}

// exp32 is the portable body: exp(x) = 2^n exp(r) with n the integer nearest to
// x / ln 2. Products are rounded before they are added (the conversions forbid
// the compiler to fuse them), so that every port gives the same bits.
func exp32(x float32) float32 {
	switch {
	case x > expOverflow:
		return float32(math.Inf(1))
	case x < expUnderflow:
		return 0
	case x != x:
		return x
	}
	z := float32(x*log2E) + roundMagic
	n := z - roundMagic
	r := x - float32(n*ln2Hi)
	r -= float32(n * ln2Lo)
	p := float32(exp6*r) + exp5
	p = float32(p*r) + exp4
	p = float32(p*r) + exp3
	p = float32(p*r) + exp2
	p = float32(p*float32(r*r)) + r
	p++
	return math.Float32frombits(math.Float32bits(p) + math.Float32bits(z)<<23)
}
