package main

import (
	"fmt"

	. "github.com/subquad/subquad/asm/_gen/simd"
)

// The scan of a shadow: keys of int8 in panels of 16, four of a key's dimensions side by
// side, so that a vector of 32-bit lanes has as many keys and a broadcast word four
// numbers of a query. A query has two planes of int8, the second worth 1/128 of the
// first. Sums are of integers: they are the same in every tier.

// shadowPanel is how many keys a panel has.
const shadowPanel = 16

// shadowScores is the scan for some rows; with dot, of the processors that multiply int8
// in fours.
func shadowScores(rows int, dot bool) kernel {
	return func(m Machine) {
		name := fmt.Sprint("shadowScores", rows)
		if dot {
			if name += "Dot"; !HasDot(m) {
				return
			}
		}
		m.Func(name, "func(groups int, panels int, k *byte, scale *float32, q *int32, bias *int32, factor *float32, next *byte, s *float32, sRow int)",
			fmt.Sprintf("s[i] = factor[i] scale (128 q[i][0] + q[i][1]) . k, for %d rows of q [groups][%[1]d][2] of four int8 each and panels [groups][16] of k;\nbias [%[1]d][2] is what sums begin with; as many bytes as k has are prefetched from next on", rows))
		together := shadowPanel / m.Lanes() // vectors of a panel that are kept at once
		if m.Tier() == "AVX2" {
			together = 1
		}
		if m.Tier() == "NEON" {
			together = 2
		}
		panels, k, scale, next := m.Param("panels"), m.Param("k"), m.Param("scale"), m.Param("next")
		out := m.Rows(m.Param("s"), m.Param("sRow"), rows)
		m.Loop(panels, 1, func() {
			var end GP
			for v := 0; v < shadowPanel/m.Lanes(); v += together {
				acc := make([][][2]Vec, together)
				bias := m.Param("bias")
				for j := range acc {
					acc[j] = make([][2]Vec, rows)
					for i := range acc[j] {
						for p := range acc[j][i] {
							acc[j][i][p] = m.SplatAt(At{Base: bias, Disp: 4 * (2*i + p)})
						}
					}
				}
				at, q, groups := m.CopyGP(k), m.Param("q"), m.Param("groups")
				m.Loop(groups, 1, func() {
					keys := make([]Vec, together)
					for j := range keys {
						keys[j] = m.Int8Factors(m.Load(At{Base: at, Disp: (v + j) * Bytes(m)}, nil))
					}
					if v == 0 {
						m.Prefetch(At{Base: next})
						m.AddImm(next, 4*shadowPanel)
					}
					for i := range rows {
						for p := range 2 {
							for j := range keys {
								m.DotInt8(acc[j][i][p], keys[j], Each{Base: q, Disp: 4 * (2*i + p)}, dot)
							}
						}
					}
					m.AddImm(at, 4*shadowPanel)
					m.AddImm(q, 8*rows)
				})
				factor := m.Param("factor")
				for j := range acc {
					disp := (v + j) * Bytes(m)
					scales := m.Load(At{Base: scale, Disp: disp}, nil)
					for i, planes := range acc[j] {
						x := m.FloatOfInt(m.AddInt(m.ShlInt(planes[0], 7), planes[1]))
						m.Store(out.At(i).Plus(disp), nil, m.Mul(m.Mul(x, scales), Each{Base: factor, Disp: 4 * i}))
					}
				}
				end = at
			}
			m.AddImm(scale, 4*shadowPanel)
			out.Advance(4 * shadowPanel)
			size := m.CopyGP(end)
			m.SubGP(size, k)
			m.AddGP(k, size)
		})
		m.End()
	}
}

// shadowWeights sums the exponentials of four panels of scores at a time.
func shadowWeights(m Machine) {
	m.Func("shadowWeights", "func(quads int, top float32, s *float32, sums *float32)",
		"sums[p] = sum over the 16 scores of panel p of exp(s - top), for 4 quads of panels")
	quads, s, sums := m.Param("quads"), m.Param("s"), m.Param("sums")
	m.Loop(quads, 1, func() {
		top := m.ParamSplat("top")
		rows := make([]Vec, 4)
		for i := range rows {
			for v := range shadowPanel / m.Lanes() {
				x := expOf(m, m.Sub(m.Load(At{Base: s, Disp: 4*shadowPanel*i + v*Bytes(m)}, nil), top), false)
				if v == 0 {
					rows[i] = m.Copy(x)
				} else {
					m.AddTo(rows[i], x)
				}
			}
		}
		m.StoreQuad(At{Base: sums}, m.SumRows(rows), 0)
		m.AddImm(s, 4*4*shadowPanel)
		m.AddImm(sums, 16)
	})
	m.End()
}
