package main

import . "github.com/subquad/subquad/asm/_gen/simd"

// expOf returns exp(x). Without upper, x must not exceed 88.7.
func expOf(m Machine, x Vec, upper bool) Vec {
	z, n := rounded(m, x, c("log2E"))
	r := m.Copy(x)
	m.MulSub(r, n, c("ln2Hi"))
	m.MulSub(r, n, c("ln2Lo"))
	p := polynomial(m, r, "exp6", "exp5", "exp4", "exp3", "exp2")
	p = m.Horner(p, m.Mul(r, r), r)
	p = m.Add(p, float(1))
	y := m.ScaleExp2(p, n, z)
	y = m.Select(m.Cmp(Less, x, c("expUnderflow")), float(0), y)
	switch infinity := Const(0x7f800000); {
	case m.Tier() == "AVX512" && upper:
		y = m.Select(m.Cmp(Greater, x, c("expOverflow")), infinity, y)
	case m.Tier() == "AVX512":
	case upper: // NaN goes the way of large x
		y = m.Select(m.Cmp(LessEqual, x, c("expOverflow")), y, m.Add(x, infinity))
	default:
		y = m.Select(m.Cmp(LessEqual, x, c("expOverflow")), y, x)
	}
	return y
}

// rounded returns n, the integer nearest to x scale, and z, of which n is the lowest bits.
func rounded(m Machine, x Vec, scale Const) (z, n Vec) {
	z = m.Copy(c("roundMagic"))
	m.MulAdd(z, x, scale)
	return z, m.Sub(z, c("roundMagic"))
}

// polynomial evaluates by Horner's rule, the highest coefficient first.
func polynomial(m Machine, x Vec, names ...string) Vec {
	p := m.Copy(c(names[0]))
	for _, n := range names[1:] {
		p = m.Horner(p, x, c(n))
	}
	return p
}

// sine is dst[i] = sin(x[i]), but x[i] itself where it is beyond sinLimit; it
// returns how many those are.
func sine(m Machine) {
	m.Func("sin", "func(dst *float32, x *float32, n int) float32",
		"dst[i] = sin(x[i]), or x[i] where |x[i]| > sinLimit; how many those are")
	dst, x, n := m.Param("dst"), m.Param("x"), m.Param("n")
	left, zero := m.Zero(), m.Zero()
	Stream(m, n, 4, []GP{dst, x}, func(s *Chunk) {
		for i := range s.Count {
			v := s.Load(x, i)
			large := m.Cmp(Greater, m.And(v, magnitude), c("sinLimit"))
			s.Store(dst, i, m.Select(large, v, sinOf(m, v)))
			m.AddTo(left, m.Select(large, float(1), zero))
		}
	})
	m.End(m.SumLanes(left))
}

// sinOf returns sin(x) for |x| <= sinLimit.
func sinOf(m Machine, x Vec) Vec {
	z, n := rounded(m, x, c("invPi"))
	r := m.Copy(x)
	m.MulSub(r, n, c("piHi"))
	m.MulSub(r, n, c("piMid"))
	m.MulSub(r, n, c("piLo"))
	s := m.Mul(r, r)
	p := polynomial(m, s, "sin11", "sin9", "sin7", "sin5", "sin3")
	y := m.Horner(m.Mul(p, s), r, r)
	return m.Xor(y, m.ShlInt(z, 31)) // odd n
}

// sigmoidOf returns 1 / (1 + exp(-x)).
func sigmoidOf(m Machine, x Vec) Vec {
	e := expOf(m, m.Xor(x, signBit), true)
	return m.Div(m.Copy(float(1)), m.Add(e, float(1)))
}

// siluOf returns x / (1 + exp(-x)), and -0 for -Inf.
func siluOf(m Machine, x Vec) Vec {
	x = AtLeast(m, x, c("siluLimit")|signBit)
	return m.Div(x, m.Add(expOf(m, m.Xor(x, signBit), true), float(1)))
}

// softplusOf returns log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)).
func softplusOf(m Machine, x Vec) Vec {
	e := expOf(m, m.Or(x, signBit), false)
	s := m.Div(e, m.Add(e, float(2)))
	s2 := m.Mul(s, s)
	p := polynomial(m, s2, "log11", "log9", "log7", "log5", "log3")
	p = m.Horner(p, s2, float(2))
	return m.Horner(p, s, AtLeast(m, x, 0))
}

// eluPlusOneOf returns x + 1 for x > 0 and exp(x) otherwise.
func eluPlusOneOf(m Machine, x Vec) Vec {
	e := expOf(m, x, true)
	return m.Select(m.Cmp(Greater, x, float(0)), m.Add(x, float(1)), e)
}

// geluTanhOf returns x / (1 + exp(-x (gelu1 + gelu3 x^2))), which is
// x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))); -0 for -Inf.
func geluTanhOf(m Machine, x Vec) Vec {
	x = AtLeast(m, x, c("normalLimit")|signBit)
	t := m.Horner(m.Mul(x, x), m.Copy(c("gelu3")), c("gelu1"))
	e := expOf(m, m.Mul(t, m.Xor(x, signBit)), true)
	return m.Div(x, m.Add(e, float(1)))
}

// geluErfOf returns x Phi(x), Phi the normal distribution; -0 for -Inf.
func geluErfOf(m Machine, x Vec) Vec {
	x = AtLeast(m, x, c("normalLimit")|signBit)
	a := m.Min(m.And(x, magnitude), c("normalLimit"))
	// exp(-a^2/2), with the rounding error of a^2 made good.
	h := m.Mul(a, a)
	low := m.Xor(h, signBit)
	m.MulAdd(low, a, a)
	e := expOf(m, m.Mul(h, float(-0.5)), false)
	e = m.Mul(e, m.Horner(low, m.Copy(float(-0.5)), float(1)))
	ca := m.Mul(a, c("tailScale"))
	t := m.Div(m.Copy(float(1)), m.Add(ca, float(1)))
	u := m.Mul(ca, t)
	p := polynomial(m, u, "tail10", "tail9", "tail8", "tail7", "tail6", "tail5", "tail4", "tail3", "tail2", "tail1")
	p = m.Horner(p, u, float(0.5))
	tail := m.Mul(m.Mul(p, t), e)
	upper := m.Sub(m.Copy(float(1)), tail)
	return m.Mul(x, m.Select(m.Cmp(Less, x, float(0)), tail, upper))
}

// unary is dst[i] = f(x[i]).
func unary(name, doc string, unroll int, f func(Machine, Vec) Vec) kernel {
	return func(m Machine) {
		m.Func(name, "func(dst *float32, x *float32, n int)", "dst[i] = "+doc)
		dst, x, n := m.Param("dst"), m.Param("x"), m.Param("n")
		Stream(m, n, unroll, []GP{dst, x}, func(s *Chunk) {
			for i := range s.Count {
				s.Store(dst, i, f(m, s.Load(x, i)))
			}
		})
		m.End()
	}
}

// binary is dst[i] = f(a[i], b[i]).
func binary(name, doc string, f func(m Machine, a, b Vec) Vec) kernel {
	return func(m Machine) {
		m.Func(name, "func(dst *float32, a *float32, b *float32, n int)", "dst[i] = "+doc)
		dst, a, b, n := m.Param("dst"), m.Param("a"), m.Param("b"), m.Param("n")
		Stream(m, n, 4, []GP{dst, a, b}, func(s *Chunk) {
			for i := range s.Count {
				s.Store(dst, i, f(m, s.Load(a, i), s.Load(b, i)))
			}
		})
		m.End()
	}
}

// scaled is dst[i] = f(a, x[i], dst[i]) with a the same for all.
func scaled(name, doc string, f func(m Machine, a, x Vec, old func() Vec) Vec) kernel {
	return func(m Machine) {
		m.Func(name, "func(dst *float32, a float32, x *float32, n int)", "dst[i] = "+doc)
		dst, x, n, a := m.Param("dst"), m.Param("x"), m.Param("n"), m.ParamSplat("a")
		Stream(m, n, 4, []GP{dst, x}, func(s *Chunk) {
			for i := range s.Count {
				s.Store(dst, i, f(m, a, s.Load(x, i), func() Vec { return s.Load(dst, i) }))
			}
		})
		m.End()
	}
}
