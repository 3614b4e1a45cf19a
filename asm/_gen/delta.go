package main

import (
	. "github.com/subquad/subquad/asm/_gen/simd"
)

// deltaStep is one token of a recurrence whose state is a matrix [states, n], of which
// something is erased before it is written to:
//
//	r[j] = sum over i of read[i] s[i][j]
//	u[j] = beta (v[j] - r[j])
//	y[j] = sum over i of ask[i] s[i][j] + kq u[j]
//	s[i][j] = decay[i] s[i][j] + k[i] u[j]
//
// or, of a pair,
//
//	y[j] = sum over i of ask[i] s[i][j] + kq v[j] + bq r[j]
//	s[i][j] = decay[i] s[i][j] + k[i] v[j] + b[i] r[j].
//
// The state is read from memory once: the second time it is in the first cache.
func deltaStep(pair bool) kernel {
	return func(m Machine) {
		if pair {
			m.Func("deltaPairStep", "func(width int, states int, s *float32, sRow int, read *float32, ask *float32, decay *float32, k *float32, v *float32, y *float32, kq float32, b *float32, bq float32)",
				"states rows of width columns; sRow in bytes")
		} else {
			m.Func("deltaStep", "func(width int, states int, s *float32, sRow int, read *float32, ask *float32, decay *float32, k *float32, v *float32, y *float32, kq float32, beta float32)",
				"states rows of width columns; sRow in bytes")
		}
		width, offset := m.Param("width"), m.ZeroGP()
		vectors := func(count int, t *Tail) {
			at := func(name string) GP { return paramFrom(m, name, offset) }
			// Two sets of sums where one would wait for the last addition.
			sets := 1
			if count < 4 {
				sets = 2
			}
			r, y := make([][]Vec, sets), make([][]Vec, sets)
			for i := range sets {
				for range count {
					r[i], y[i] = append(r[i], m.Zero()), append(y[i], m.Zero())
				}
			}
			s, sRow, read, ask, states := at("s"), m.Param("sRow"), m.Param("read"), m.Param("ask"), m.Param("states")
			sums := func(rows int) {
				m.Loop(states, rows, func() {
					for i := range rows {
						p, q := m.SplatAt(At{Base: read, Disp: 4 * i}), m.SplatAt(At{Base: ask, Disp: 4 * i})
						for j := range count {
							x := m.Load(At{Base: s, Disp: j * Bytes(m)}, t)
							m.MulAdd(r[i][j], x, p)
							m.MulAdd(y[i][j], x, q)
						}
						m.AddGP(s, sRow)
					}
					m.AddImm(read, 4*rows)
					m.AddImm(ask, 4*rows)
				})
			}
			if sets > 1 {
				sums(sets)
			}
			sums(1)
			for i := 1; i < sets; i++ {
				for j := range count {
					m.AddTo(r[0][j], r[i][j])
					m.AddTo(y[0][j], y[i][j])
				}
			}
			from, to := at("v"), at("y")
			kq := m.ParamSplat("kq")
			u := make([]Vec, count)
			for j := range count {
				v := m.Load(At{Base: from, Disp: j * Bytes(m)}, t)
				if pair {
					u[j] = v
					m.MulAdd(y[0][j], r[0][j], m.ParamSplat("bq"))
				} else {
					u[j] = m.Mul(m.Sub(v, r[0][j]), m.ParamSplat("beta"))
				}
				m.MulAdd(y[0][j], u[j], kq)
				m.Store(At{Base: to, Disp: j * Bytes(m)}, t, y[0][j])
			}
			s, states = at("s"), m.Param("states")
			decay, k := m.Param("decay"), m.Param("k")
			var b GP
			if pair {
				b = m.Param("b")
			}
			m.Loop(states, 1, func() {
				d, ks := m.SplatAt(At{Base: decay}), m.SplatAt(At{Base: k})
				var bs Vec
				if pair {
					bs = m.SplatAt(At{Base: b})
				}
				for j := range count {
					place := At{Base: s, Disp: j * Bytes(m)}
					x := m.Mul(u[j], ks)
					if pair {
						m.MulAdd(x, r[0][j], bs)
					}
					m.MulAdd(x, d, m.Load(place, t))
					m.Store(place, t, x)
				}
				m.AddGP(s, sRow)
				m.AddImm(decay, 4)
				m.AddImm(k, 4)
				if pair {
					m.AddImm(b, 4)
				}
			})
		}
		counts := []int{2, 1}
		if m.Lanes() < 16 {
			counts = []int{4, 1}
		}
		columns(m, width, offset, counts, vectors)
		m.End()
	}
}
