package main

import (
	"fmt"

	. "github.com/subquad/subquad/asm/_gen/simd"
)

// convolution is the depthwise convolution of some tokens with taps taps:
//
//	y[t][c] = init[t][c] + sum over j of w[j][c] * x[t+j][c].
//
// Strides are in bytes; initRow is 0 where init is a bias.
func convolution(tokens int) kernel {
	return func(m Machine) {
		m.Func(fmt.Sprint("convolution", tokens),
			"func(n int, taps int, x *float32, xRow int, w *float32, wRow int, init *float32, initRow int, y *float32, yRow int)",
			fmt.Sprintf("%d token(s) of n channels; strides in bytes", tokens))
		n := m.Param("n")
		offset := m.ZeroGP()
		vector := func(t *Tail) {
			from := func(name string) GP { return paramFrom(m, name, offset) }
			initRows := m.Rows(from("init"), m.Param("initRow"), tokens)
			acc := make([]Vec, tokens)
			for i := range acc {
				acc[i] = m.Load(initRows.At(i), t)
			}
			xRow := m.Param("xRow")
			x, w, wRow := m.Rows(from("x"), xRow, tokens), from("w"), m.Param("wRow")
			m.Loop(m.Param("taps"), 1, func() {
				tap := m.Load(At{Base: w}, t)
				for i := range acc {
					if t == nil {
						m.MulAdd(acc[i], tap, x.At(i))
					} else {
						m.MulAdd(acc[i], tap, m.Load(x.At(i), t))
					}
				}
				x.AdvanceGP(xRow)
				m.AddGP(w, wRow)
			})
			y := m.Rows(from("y"), m.Param("yRow"), tokens)
			for i := range acc {
				m.Store(y.At(i), t, acc[i])
			}
		}
		m.Loop(n, m.Lanes(), func() {
			vector(nil)
			m.AddImm(offset, Bytes(m))
		})
		m.Tail(n, func(t *Tail) {
			vector(t)
			AdvanceTail(m, t, offset)
		})
		m.End()
	}
}
