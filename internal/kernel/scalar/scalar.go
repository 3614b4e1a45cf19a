// Package scalar has the portable bodies of the elementary functions, for one
// number each, and the conversions of stored numbers. They are what the generic
// tier of packages asm and internal/kernel computes, and share their coefficients
// with the assembly: asm/_gen writes both.
//
// Products are rounded before they are added (the conversions to float32 forbid
// the compiler to fuse them), so that every port gives the same bits.
package scalar

import "math"

// SinLimit is where the reduction of Sin by three parts of pi ends: the kernels
// leave arguments beyond it to math.Sin.
const SinLimit = sinLimit

// Tiny is 2^-103: states below it are flushed to 0.
const Tiny = tiny

// Exp is exp(x) = 2^n exp(r) with n the integer nearest to x / ln 2. Above
// 88.72284 it is +Inf, below -87.33654 it is 0.
func Exp(x float32) float32 {
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

// Weight is exp(x) for x <= 0 where its absolute error is what matters, as in
// softmax: 2^n 2^-g with n the integer nearest to x / ln 2.
func Weight(x float32) float32 {
	switch {
	case x < expUnderflow:
		return 0
	case x != x:
		return x
	}
	z := float32(x*log2E) + roundMagic
	n := z - roundMagic
	g := float32(float64(n) - float64(x)*float64(log2E)) // rounded once
	return power(g, z)
}

// Exp2 is 2^x. Exponents below -126 count as -126; from 128 on it is +Inf.
func Exp2(x float32) float32 {
	switch {
	case x < exp2Least:
		x = exp2Least
	case x >= exp2Most:
		return float32(math.Inf(1))
	case x != x:
		return x
	}
	z := x + roundMagic
	g := z - roundMagic - x
	return power(g, z)
}

// power is 2^(n-g) for g in [-0.5, 0.5], n the low bits of z.
func power(g, z float32) float32 {
	p := float32(pow5*g) + pow4
	p = float32(p*g) + pow3
	p = float32(p*g) + pow2
	p = float32(p*g) + pow1
	p = float32(p*g) + 1
	return math.Float32frombits(math.Float32bits(p) + math.Float32bits(z)<<23)
}

// Sin is sin(x) = (-1)^n sin(r) with n the integer nearest to x / pi. The kernels
// take n pi off x in three fused steps; here float64 does it.
func Sin(x float32) float32 {
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

// CosSin is the cosine and the sine of 2 pi phase / 2^32: the nearest quarter
// turn, in the two high bits of t, and a polynomial of the rest.
func CosSin(phase uint32) (c, s float32) {
	t := phase + 1<<29
	x := float32(int32(t&(1<<30-1))-1<<29) * quarterTurn
	x2 := x * x
	p := float32(turnSin7*x2) + turnSin5
	p = float32(p*x2) + turnSin3
	s = float32(float32(p*x2)*x) + x
	q := float32(turnCos8*x2) + turnCos6
	q = float32(q*x2) + turnCos4
	q = float32(q*x2) - 0.5
	c = float32(q*x2) + 1
	if t&(1<<30) != 0 {
		c, s = s, c
	}
	const sign = 1 << 31
	c = math.Float32frombits(math.Float32bits(c) ^ (t^t<<1)&sign)
	s = math.Float32frombits(math.Float32bits(s) ^ t&sign)
	return c, s
}

// SiLU is x / (1 + exp(-x)); below -88.7, at -Inf too, it is -0.
func SiLU(x float32) float32 {
	if x < -siluLimit { // not -Inf / +Inf
		x = -siluLimit
	}
	return x / (1 + Exp(-x))
}

// Softplus is max(x, 0) + log(1 + e) with e = exp(-|x|), log(1 + e) = 2 atanh(s),
// s = e / (2 + e).
func Softplus(x float32) float32 {
	e := Exp(-float32(math.Abs(float64(x))))
	s := e / (e + 2)
	s2 := s * s
	p := float32(log11*s2) + log9
	p = float32(p*s2) + log7
	p = float32(p*s2) + log5
	p = float32(p*s2) + log3
	p = float32(p*s2) + 2
	if x < 0 {
		return p * s
	}
	return float32(p*s) + x // NaN comes here
}

// GELUTanh is x / (1 + exp(-x (gelu1 + gelu3 x^2))), the tanh form of GELU.
func GELUTanh(x float32) float32 {
	x = max(x, -normalLimit) // max keeps NaN
	t := float32(float32(x*x)*gelu3) + gelu1
	return x / (1 + Exp(float32(t*-x)))
}

// GELU is x Phi(x). Phi(-a) = exp(-a^2/2) t P(1-t) with t = 1 / (1 + c a); the
// rounding error of a^2 would be magnified by the exponential and is made good.
func GELU(x float32) float32 {
	x = max(x, -normalLimit)
	a := min(float32(math.Abs(float64(x))), normalLimit)
	h := a * a
	low := float32(float64(a)*float64(a) - float64(h))
	e := Exp(-0.5*h) * (float32(-0.5*low) + 1)
	ca := float32(tailScale * a)
	t := 1 / (ca + 1)
	u := ca * t
	p := float32(tail10)
	for _, c := range [...]float32{tail9, tail8, tail7, tail6, tail5, tail4, tail3, tail2, tail1, 0.5} {
		p = float32(p*u) + c
	}
	tail := float32(p*t) * e
	if x < 0 {
		return x * tail
	}
	return x * (1 - tail)
}

// Softcap is c tanh(x / c), for c > 0.
func Softcap(x, c float32) float32 {
	a := float32(math.Abs(float64(x))) / c
	var t float32
	if a < tanhLimit {
		a2 := float32(a * a)
		p := float32(tanh11*a2) + tanh9
		p = float32(p*a2) + tanh7
		p = float32(p*a2) + tanh5
		p = float32(p*a2) + tanh3
		t = float32(float32(p*a2)*a) + a
	} else {
		e := Exp(-2 * a)
		t = (1 - e) / (1 + e)
	}
	return float32(math.Copysign(float64(float32(t*c)), float64(x)))
}
