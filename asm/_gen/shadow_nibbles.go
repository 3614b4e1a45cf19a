package main

import (
	"fmt"

	. "github.com/subquad/subquad/asm/_gen/simd"
)

// A shadow of four bits has in each byte of a panel two numbers of a key, 0 to 15, which
// stand for -8 to 7: of groups 2i and 2i+1 of four. Every eight groups, 32 numbers, have a
// scale of their own, so that sums of integers end there and go on in float32, in their
// order.

// shadowScores4Bit is the scan of such panels for some rows.
func shadowScores4Bit(rows int, dot bool) kernel {
	return func(m Machine) {
		name := fmt.Sprint("shadowNibbles", rows)
		if dot {
			if name += "Dot"; !HasDot(m) {
				return
			}
		}
		m.Func(name, "func(blocks int, panels int, k *byte, scale *float32, q *int32, bias *int32, factor *float32, next *byte, s *float32, sRow int)",
			fmt.Sprintf("s[i] = factor[i] sum over blocks b of scale[b] (128 q[i][0] + q[i][1]) . k, for %d rows of q [8*blocks][%[1]d][2] of four int8 each, panels [4*blocks][16] of k and scales [blocks][16];\nbias [blocks][%[1]d][2] is what sums begin with; as many bytes as k has are prefetched from next on", rows))
		panels, k, scale, next := m.Param("panels"), m.Param("k"), m.Param("scale"), m.Param("next")
		out := m.Rows(m.Param("s"), m.Param("sRow"), rows)
		m.Loop(panels, 1, func() {
			var end, scales GP
			for v := range shadowPanel / m.Lanes() {
				sums := make([]Vec, rows)
				for i := range sums {
					sums[i] = m.Zero()
				}
				at, blocks, q, bias := m.CopyGP(k), m.Param("blocks"), m.Param("q"), m.Param("bias")
				factors := m.CopyGP(scale)
				m.Loop(blocks, 1, func() {
					acc := make([][2]Vec, rows)
					for i := range acc {
						for p := range acc[i] {
							acc[i][p] = m.SplatAt(At{Base: bias, Disp: 4 * (2*i + p)})
						}
					}
					for pair := range 4 {
						both := m.Load(At{Base: at, Disp: 4*shadowPanel*pair + v*Bytes(m)}, nil)
						for half, keys := range [...]Vec{m.And(both, Const(0x0f0f0f0f)), m.And(m.ShrInt(both, 4), Const(0x0f0f0f0f))} {
							for i := range acc {
								for p := range acc[i] {
									m.DotInt8(acc[i][p], keys, Each{Base: q, Disp: 4 * ((2*pair+half)*2*rows + 2*i + p)}, dot)
								}
							}
						}
						if v == 0 {
							m.Prefetch(At{Base: next, Disp: 4 * shadowPanel * pair})
						}
					}
					if v == 0 {
						m.AddImm(next, 4*4*shadowPanel)
					}
					for i, planes := range acc {
						x := m.FloatOfInt(m.AddInt(m.ShlInt(planes[0], 7), planes[1]))
						m.AddTo(sums[i], m.Mul(x, At{Base: factors, Disp: v * Bytes(m)}))
					}
					m.AddImm(at, 4*4*shadowPanel)
					m.AddImm(q, 8*8*rows)
					m.AddImm(bias, 8*rows)
					m.AddImm(factors, 4*shadowPanel)
				})
				factor := m.Param("factor")
				for i, x := range sums {
					m.Store(out.At(i).Plus(v*Bytes(m)), nil, m.Mul(x, Each{Base: factor, Disp: 4 * i}))
				}
				end, scales = at, factors
			}
			out.Advance(4 * shadowPanel)
			for _, x := range [][2]GP{{k, end}, {scale, scales}} {
				size := m.CopyGP(x[1])
				m.SubGP(size, x[0])
				m.AddGP(x[0], size)
			}
		})
		m.End()
	}
}
