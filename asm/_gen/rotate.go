package main

import (
	"fmt"

	. "github.com/subquad/subquad/asm/_gen/simd"
)

// rotateKernels lists the kernels of one layout: with the table in memory, and in
// registers.
func rotateKernels(layout func(vectors int) kernel) (list []kernel) {
	for _, vectors := range append([]int{0}, fixedVectors...) {
		list = append(list, layout(vectors))
	}
	return list
}

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

// rotateHalf rotates the pairs (i, half+i) of every head of a row. With vectors,
// half is that many vectors, whose cosines and sines stay in registers.
func rotateHalf(vectors int) kernel {
	return func(m Machine) {
		m.Func(fixedName("rotateHalf", vectors), "func(dst *float32, x *float32, heads int, headBytes int, half int, cos *float32, sin *float32)",
			"dst[i], dst[half+i] = x[i] cos[i] - x[half+i] sin[i], x[half+i] cos[i] + x[i] sin[i] of each head"+fixedDoc("half", vectors))
		rotate := func(load func(p GP, i int) Vec, store func(p GP, i int, v Vec), p [4]GP, i int, cos, sin Vec) {
			a, b := load(p[0], i), load(p[1], i)
			y, y2 := m.Mul(a, cos), m.Mul(b, cos)
			m.MulSub(y, b, sin)
			m.MulAdd(y2, a, sin)
			store(p[2], i, y)
			store(p[3], i, y2)
		}
		eachHead(m, vectors, func(x, dst, cos, sin GP, table [][2]Vec) {
			half := m.Param("half")
			m.ShlImm(half, 2)
			p := [4]GP{x, m.CopyGP(x), dst, m.CopyGP(dst)}
			m.AddGP(p[1], half)
			m.AddGP(p[3], half)
			for i, t := range table {
				rotate(vectorLoad(m), vectorStore(m), p, i, t[0], t[1])
			}
			if vectors == 0 {
				Stream(m, m.Param("half"), 4, append(p[:], cos, sin), func(s *Chunk) {
					for i := range s.Count {
						rotate(s.Load, s.Store, p, i, s.Load(cos, i), s.Load(sin, i))
					}
				})
			}
		})
		m.End()
	}
}

// rotateInterleaved rotates the pairs (2i, 2i+1) of every head of a row; vectors
// is as in rotateHalf.
func rotateInterleaved(vectors int) kernel {
	return func(m Machine) {
		m.Func(fixedName("rotateInterleaved", vectors), "func(dst *float32, x *float32, heads int, headBytes int, width int, cos *float32, sin *float32)",
			"dst[i] = x[i] cos[i] + x[i^1] sin[i] of each head, i < width"+fixedDoc("width", vectors))
		rotate := func(v, cos, sin Vec) Vec {
			y := m.Mul(v, cos)
			m.MulAdd(y, m.SwapPairs(v), sin)
			return y
		}
		eachHead(m, vectors, func(x, dst, cos, sin GP, table [][2]Vec) {
			for i, t := range table {
				vectorStore(m)(dst, i, rotate(vectorLoad(m)(x, i), t[0], t[1]))
			}
			if vectors == 0 {
				Stream(m, m.Param("width"), 4, []GP{x, dst, cos, sin}, func(s *Chunk) {
					for i := range s.Count {
						s.Store(dst, i, rotate(s.Load(x, i), s.Load(cos, i), s.Load(sin, i)))
					}
				})
			}
		})
		m.End()
	}
}

// fixedVectors are the numbers of vectors for which there are kernels with the
// table in registers.
var fixedVectors = []int{1, 2, 4}

// rotateChoice is the one among them, by how many whole vectors the table is.
func rotateChoice(name, width string) choice {
	c := choice{
		name: name,
		doc:  fmt.Sprintf("%sSIMD rotates heads; vectors is how many whole vectors %s is, or 0.", name, width),
		by:   "vectors int", key: "vectors",
		params: fmt.Sprintf("dst *float32, x *float32, heads int, headBytes int, %s int, cos *float32, sin *float32", width),
	}
	for _, vectors := range fixedVectors {
		c.members = append(c.members, member{key: fmt.Sprint(vectors), kernel: fixedName(name, vectors)})
	}
	c.members = append(c.members, member{kernel: name})
	return newChoice(c)
}

func fixedName(name string, vectors int) string {
	if vectors == 0 {
		return name
	}
	return fmt.Sprint(name, vectors)
}

func fixedDoc(width string, vectors int) string {
	if vectors == 0 {
		return ""
	}
	return fmt.Sprintf("; %s is %d vector(s)", width, vectors)
}

func vectorLoad(m Machine) func(p GP, i int) Vec {
	return func(p GP, i int) Vec { return m.Load(At{Base: p, Disp: i * Bytes(m)}, nil) }
}

func vectorStore(m Machine) func(p GP, i int, v Vec) {
	return func(p GP, i int, v Vec) { m.Store(At{Base: p, Disp: i * Bytes(m)}, nil, v) }
}

// eachHead runs body for every head, with pointers that it may use up and, if
// vectors is not 0, with cosines and sines in registers.
func eachHead(m Machine, vectors int, body func(x, dst, cos, sin GP, table [][2]Vec)) {
	x, dst := m.Param("x"), m.Param("dst")
	var table [][2]Vec
	if vectors > 0 {
		cos, sin := m.Param("cos"), m.Param("sin")
		for i := range vectors {
			table = append(table, [2]Vec{vectorLoad(m)(cos, i), vectorLoad(m)(sin, i)})
		}
	}
	m.Loop(m.Param("heads"), 1, func() {
		var cos, sin GP
		if vectors == 0 {
			cos, sin = m.Param("cos"), m.Param("sin")
		}
		body(m.CopyGP(x), m.CopyGP(dst), cos, sin, table)
		step := m.Param("headBytes")
		m.AddGP(x, step)
		m.AddGP(dst, step)
	})
}
