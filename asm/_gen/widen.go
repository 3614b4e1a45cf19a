package main

import (
	. "github.com/subquad/subquad/asm/_gen/simd"
)

// widenVectors is how many vectors a turn of widen's loop takes.
const widenVectors = 4

// widen is dst[i] = x[i], of 16 bits, for whole vectors: count is a multiple of Lanes.
// What a loop leaves, one vector or more, goes one at a time.
func widen(suffix string, load func(Machine, At) Vec) kernel {
	return func(m Machine) {
		m.Func("widen"+suffix, "func(count int, dst *float32, x *byte)", "dst[i] = x[i] for count elements, a multiple of the lanes")
		n, dst, x := m.Param("count"), m.Param("dst"), m.Param("x")
		for _, vectors := range []int{widenVectors, 1} {
			m.Loop(n, vectors*m.Lanes(), func() {
				for i := range vectors {
					v := load(m, At{Base: x, Disp: 2 * i * m.Lanes()})
					m.Store(At{Base: dst, Disp: i * Bytes(m)}, nil, v)
				}
				m.AddImm(x, 2*vectors*m.Lanes())
				m.AddImm(dst, vectors*Bytes(m))
			})
		}
		m.End()
	}
}
