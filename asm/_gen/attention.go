package main

import (
	"fmt"

	. "github.com/subquad/subquad/asm/_gen/simd"
)

// The three steps of a tile of attention: scores of some query rows with panels
// of keys, their exponentials relative to the row's largest so far, and the
// product of those with a panel of values. Panels are as wide as the matrix
// kernels'; strides are in bytes.

// inner is the loop all of them share: acc[i][j] += a[i][x] * b[x][j], over n
// rows of a packed panel at b.
func inner(m Machine, acc [][]Vec, n GP, a Rows, b GP) {
	width := len(acc[0])
	step := func(count int) func() {
		return func() {
			for u := range count {
				row := make([]Vec, width)
				for j := range row {
					row[j] = m.Load(At{Base: b, Disp: (u*width + j) * Bytes(m)}, nil)
				}
				for i := range acc {
					x := m.SplatAt(a.At(i).Plus(4 * u))
					for j := range row {
						m.MulAdd(acc[i][j], x, row[j])
					}
				}
			}
			m.AddImm(b, count*width*Bytes(m))
			a.Advance(4 * count)
		}
	}
	if m.Tier() != "NEON" { // SplatAt is dear there away from the pointer itself
		m.Loop(n, 4, step(4))
	}
	m.Loop(n, 1, step(1))
}

func zeroTile(m Machine, rows int) [][]Vec {
	acc := make([][]Vec, rows)
	for i := range acc {
		for range panelVectors(m) {
			acc[i] = append(acc[i], m.Zero())
		}
	}
	return acc
}

// tileName and tileRows give a kernel for rows rows, 0 standing for the full height.
func tileName(name string, rows int) string {
	if rows == 0 {
		return name + "Full"
	}
	return fmt.Sprint(name, rows)
}

func tileRows(m Machine, rows int) int {
	if rows == 0 {
		return fullRows(m)
	}
	return rows
}

func attentionScores(rows int) kernel {
	return func(m Machine) {
		height := tileRows(m, rows)
		m.Func(tileName("attentionScores", rows), "func(dim int, panels int, q *float32, qRow int, k *float32, s *float32, sRow int)",
			fmt.Sprintf("s = q k for %d rows of q [dim] and panels [dim][%d]", height, panelVectors(m)*m.Lanes()))
		panels, k, s := m.Param("panels"), m.Param("k"), m.Param("s")
		m.Loop(panels, 1, func() {
			acc := zeroTile(m, height)
			inner(m, acc, m.Param("dim"), m.Rows(m.Param("q"), m.Param("qRow"), height), k)
			out := m.Rows(m.CopyGP(s), m.Param("sRow"), height)
			for i := range acc {
				for j, v := range acc[i] {
					m.Store(out.At(i).Plus(j*Bytes(m)), nil, v)
				}
			}
			m.AddImm(s, panelVectors(m)*Bytes(m))
		})
		m.End()
	}
}

func attentionValues(rows int) kernel {
	return func(m Machine) {
		height := tileRows(m, rows)
		m.Func(tileName("attentionValues", rows), "func(keys int, p *float32, pRow int, v *float32, o *float32, oRow int, factor *float32)",
			fmt.Sprintf("o[i] = o[i] * factor[i] + p v for %d rows of p [keys] and a panel [keys][%d]", height, panelVectors(m)*m.Lanes()))
		acc := zeroTile(m, height)
		inner(m, acc, m.Param("keys"), m.Rows(m.Param("p"), m.Param("pRow"), height), m.Param("v"))
		out, factor := m.Rows(m.Param("o"), m.Param("oRow"), height), m.Param("factor")
		for i := range acc {
			f := m.SplatAt(At{Base: factor, Disp: 4 * i})
			for j, v := range acc[i] {
				at := out.At(i).Plus(j * Bytes(m))
				m.MulAdd(v, f, m.Load(at, nil))
				m.Store(at, nil, v)
			}
		}
		m.End()
	}
}

// attentionWeights is the online softmax of rows of scores, in place.
func attentionWeights(m Machine) {
	m.Func("attentionWeights", "func(rows int, keys int, s *float32, sRow int, top *float32, sum *float32, factor *float32)",
		"for each row: t = max(top, max s); factor = exp(top-t); s = exp(s-t);\nsum = sum*factor + the sum of s; top = t")
	rows, s := m.Param("rows"), m.Param("s")
	top, sum, factor := m.Param("top"), m.Param("sum"), m.Param("factor")
	m.Loop(rows, 1, func() {
		old := m.SplatAt(At{Base: top})
		largest := newAccumulator(func() Vec { return m.Copy(old) })
		x := m.CopyGP(s)
		Stream(m, m.Param("keys"), accumulators, []GP{x}, func(c *Chunk) {
			for i := range c.Count {
				m.Set(largest[i], m.Max(c.LoadFill(x, i, old), largest[i]))
			}
		})
		t := m.MaxAcross(m.Max(m.Max(largest[0], largest[1]), m.Max(largest[2], largest[3])))
		m.StoreFirst(At{Base: top}, t)
		f := expOf(m, m.Sub(old, t), false)
		m.StoreFirst(At{Base: factor}, f)

		total, low := newAccumulator(func() Vec { return m.Copy(float(0)) }), m.Splat(0xff800000)
		x = m.CopyGP(s)
		Stream(m, m.Param("keys"), accumulators, []GP{x}, func(c *Chunk) {
			for i := range c.Count {
				e := expOf(m, m.Sub(c.LoadFill(x, i, low), t), false)
				c.Store(x, i, e)
				m.AddTo(total[i], e)
			}
		})
		all := m.SumAcross(m.Add(m.Add(total[0], total[1]), m.Add(total[2], total[3])))
		m.MulAdd(all, f, m.SplatAt(At{Base: sum}))
		m.StoreFirst(At{Base: sum}, all)
		for _, p := range []GP{top, sum, factor} {
			m.AddImm(p, 4)
		}
		m.AddGP(s, m.Param("sRow"))
	})
	m.End()
}

// attentionKernels lists the full height first, then what is left of rows.
func attentionKernels() (list []kernel) {
	for _, rows := range []int{0, 4, 1} {
		list = append(list, attentionScores(rows), attentionValues(rows))
	}
	return append(list, attentionWeights)
}
