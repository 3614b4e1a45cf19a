package main

import . "github.com/subquad/subquad/asm/_gen/simd"

// cosSin is the cosine and the sine of phases in units of 2^-32 turns, times a
// factor. The phase is split into the nearest quarter turn, in the two high bits
// of t, and a rest of at most an eighth of a turn.
func cosSin(m Machine) {
	m.Func("cosSin", "func(cos *float32, sin *float32, phase *uint32, count int, factor float32)",
		"cos[i], sin[i] = factor times the cosine and sine of 2 pi phase[i] / 2^32")
	cos, sin, phase, n := m.Param("cos"), m.Param("sin"), m.Param("phase"), m.Param("count")
	factor := m.ParamSplat("factor")
	Stream(m, n, 2, []GP{cos, sin, phase}, func(s *Chunk) {
		for i := range s.Count {
			t := m.AddInt(s.Load(phase, i), Const(1<<29))
			r := m.AddInt(m.And(t, Const(1<<30-1)), Const(-1<<29&0xffffffff))
			x := m.Mul(m.FloatOfInt(r), c("quarterTurn"))
			x2 := m.Mul(x, x)
			p := polynomial(m, x2, "turnSin7", "turnSin5", "turnSin3")
			ps := m.Horner(m.Mul(p, x2), x, x)
			q := polynomial(m, x2, "turnCos8", "turnCos6", "turnCos4")
			pc := m.Horner(m.Horner(q, x2, float(-0.5)), x2, float(1))
			// As a float32 the bit of odd quarters alone is 2.
			odd := m.Cmp(Greater, m.And(t, Const(1<<30)), float(0))
			c0, s0 := m.Select(odd, ps, pc), m.Select(odd, pc, ps)
			c0 = m.Xor(c0, m.And(m.Xor(t, m.ShlInt(t, 1)), signBit))
			s0 = m.Xor(s0, m.And(t, signBit))
			s.Store(cos, i, m.Mul(c0, factor))
			s.Store(sin, i, m.Mul(s0, factor))
		}
	})
	m.End()
}

// rotateHalf rotates the pairs (i, half+i) of every head of a row.
func rotateHalf(m Machine) {
	m.Func("rotateHalf", "func(dst *float32, x *float32, heads int, headBytes int, half int, cos *float32, sin *float32)",
		"dst[i], dst[half+i] = x[i] cos[i] - x[half+i] sin[i], x[half+i] cos[i] + x[i] sin[i] of each head")
	dst, x := m.Param("dst"), m.Param("x")
	m.Loop(m.Param("heads"), 1, func() {
		second := m.Param("half")
		m.ShlImm(second, 2)
		a, to := m.CopyGP(x), m.CopyGP(dst)
		b, to2 := m.CopyGP(x), m.CopyGP(dst)
		m.AddGP(b, second)
		m.AddGP(to2, second)
		cos, sin := m.Param("cos"), m.Param("sin")
		Stream(m, m.Param("half"), 4, []GP{a, b, to, to2, cos, sin}, func(s *Chunk) {
			for i := range s.Count {
				va, vb := s.Load(a, i), s.Load(b, i)
				vc, vs := s.Load(cos, i), s.Load(sin, i)
				y, y2 := m.Mul(va, vc), m.Mul(vb, vc)
				m.MulSub(y, vb, vs)
				m.MulAdd(y2, va, vs)
				s.Store(to, i, y)
				s.Store(to2, i, y2)
			}
		})
		step := m.Param("headBytes")
		m.AddGP(x, step)
		m.AddGP(dst, step)
	})
	m.End()
}

// rotateInterleaved rotates the pairs (2i, 2i+1) of every head of a row.
func rotateInterleaved(m Machine) {
	m.Func("rotateInterleaved", "func(dst *float32, x *float32, heads int, headBytes int, width int, cos *float32, sin *float32)",
		"dst[i] = x[i] cos[i] + x[i^1] sin[i] of each head, i < width")
	dst, x := m.Param("dst"), m.Param("x")
	m.Loop(m.Param("heads"), 1, func() {
		from, to := m.CopyGP(x), m.CopyGP(dst)
		cos, sin := m.Param("cos"), m.Param("sin")
		Stream(m, m.Param("width"), 4, []GP{from, to, cos, sin}, func(s *Chunk) {
			for i := range s.Count {
				v := s.Load(from, i)
				y := m.Mul(v, s.Load(cos, i))
				m.MulAdd(y, m.SwapPairs(v), s.Load(sin, i))
				s.Store(to, i, y)
			}
		})
		step := m.Param("headBytes")
		m.AddGP(x, step)
		m.AddGP(dst, step)
	})
	m.End()
}
