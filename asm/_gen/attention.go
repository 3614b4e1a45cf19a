package main

import (
	"fmt"

	. "github.com/subquad/subquad/asm/_gen/simd"
)

// The three steps of a tile of attention: scores of some query rows with panels
// of keys, their exponentials relative to the row's largest so far, and the
// product of those with a panel of values. Strides are in bytes.

// attentionPack transposes Lanes keys into a panel.
func attentionPack(m Machine) {
	m.Func("attentionPack", "func(dim int, k *float32, kRow int, panel *float32, panelRow int)",
		fmt.Sprintf("columns of %d rows of k become rows of a panel, for as many of dim as fill a vector", m.Lanes()))
	dim, panel, panelRow := m.Param("dim"), m.Param("panel"), m.Param("panelRow")
	k := m.Rows(m.Param("k"), m.Param("kRow"), m.Lanes())
	m.Loop(dim, m.Lanes(), func() {
		rows := make([]Vec, m.Lanes())
		for i := range rows {
			rows[i] = m.Load(k.At(i), nil)
		}
		for _, column := range m.Transpose(rows) {
			m.Store(At{Base: panel}, nil, column)
			m.AddGP(panel, panelRow)
		}
		k.Advance(Bytes(m))
	})
	m.End()
}

// tileProduct is the loop that scores and values share: acc[i][j] += a[i][x] * b[x][j], over n
// rows of a packed panel at b. between is called once for every four of them, after the first.
func tileProduct(m Machine, acc [][]Vec, n GP, a Rows, b GP, between func()) {
	width := len(acc[0])
	var four GP
	if HasPast(m) {
		four = m.ZeroGP()
		m.AddImm(four, 4)
	}
	step := func(count int) func() {
		return func() {
			for u := range count {
				row := make([]Vec, width)
				for j := range row {
					row[j] = m.Load(At{Base: b, Disp: (u*width + j) * Bytes(m)}, nil)
				}
				for i := range acc {
					var x Vec
					if HasPast(m) {
						x = m.SplatPast(a.At(i).Base, four)
					} else {
						x = m.SplatAt(a.At(i).Plus(4 * u))
					}
					for j := range row {
						m.MulAdd(acc[i][j], x, row[j])
					}
				}
				if count > 1 && u == 0 {
					between()
				}
			}
			m.AddImm(b, count*width*Bytes(m))
			if !HasPast(m) {
				a.Advance(4 * count)
			}
		}
	}
	if !HasPast(m) { // SplatAt is dear there away from the pointer itself
		m.Loop(n, 4, step(4))
	}
	m.Loop(n, 1, step(1))
}

func zeroTile(m Machine, rows int) [][]Vec {
	acc := make([][]Vec, rows)
	for i := range acc {
		for range tileVectors(m) {
			acc[i] = append(acc[i], m.Zero())
		}
	}
	return acc
}

// tileName is the name of a kernel for rows rows, 0 standing for the full height.
func tileName(name string, rows int) string {
	if rows == 0 {
		return name + "Full"
	}
	return fmt.Sprint(name, rows)
}

// attentionScores asks meanwhile for memory that will be needed: one cache line at a time,
// because many requests at once wait for each other.
func attentionScores(rows int) kernel {
	return func(m Machine) {
		height := tileRows(m, rows)
		m.Func(tileName("attentionScores", rows), "func(dim int, panels int, q *float32, qRow int, k *float32, s *float32, sRow int, ahead *float32)",
			fmt.Sprintf("s = q k for %d rows of q [dim] and panels [dim][%d];\nfor every four of dim a cache line is prefetched from ahead on", height, tileVectors(m)*m.Lanes()))
		panels, k, s, ahead := m.Param("panels"), m.Param("k"), m.Param("s"), m.Param("ahead")
		m.Loop(panels, 1, func() {
			acc := zeroTile(m, height)
			tileProduct(m, acc, m.Param("dim"), m.Rows(m.Param("q"), m.Param("qRow"), height), k, func() {
				m.Prefetch(At{Base: ahead})
				m.AddImm(ahead, 64)
			})
			out := m.Rows(m.CopyGP(s), m.Param("sRow"), height)
			for i := range acc {
				for j, v := range acc[i] {
					m.Store(out.At(i).Plus(j*Bytes(m)), nil, v)
				}
			}
			m.AddImm(s, tileVectors(m)*Bytes(m))
		})
		m.End()
	}
}

func attentionValues(rows int) kernel {
	return func(m Machine) {
		height := tileRows(m, rows)
		m.Func(tileName("attentionValues", rows), "func(keys int, p *float32, pRow int, v *float32, o *float32, oRow int, factor *float32)",
			fmt.Sprintf("o[i] = o[i] * factor[i] + p v for %d rows of p [keys] and a panel [keys][%d]", height, tileVectors(m)*m.Lanes()))
		acc := zeroTile(m, height)
		tileProduct(m, acc, m.Param("keys"), m.Rows(m.Param("p"), m.Param("pRow"), height), m.Param("v"), func() {})
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

// weightOf returns exp(x) for x <= 0, three operations shorter than expOf.
func weightOf(m Machine, x Vec) Vec {
	z, n := rounded(m, x, c("log2E"))
	g := m.Copy(n)
	m.MulSub(g, x, c("log2E"))
	p := polynomial(m, g, "pow5", "pow4", "pow3", "pow2", "pow1")
	y := m.ScaleExp2Where(m.Cmp(NotLess, x, c("expUnderflow")), m.Horner(p, g, float(1)), n, z)
	if m.Tier() != "AVX512" { // a NaN, or what is not <= 0, stays
		y = m.Select(m.Cmp(LessEqual, x, float(0)), y, x)
	}
	return y
}

// attentionWeights is the online softmax of rows of scores, in place. It goes over the rows
// twice, so that the reductions of some overlap with the next; between, it compares with what
// was before for as many rows as fill a vector. Their largest scores wait in factor.
func attentionWeights(m Machine) {
	m.Func("attentionWeights", "func(rows int, keys int, s *float32, sRow int, top *float32, sum *float32, factor *float32)",
		"for each row: t = max(top, max s); factor = exp(top-t); s = exp(s-t);\nsum = sum*factor + the sum of s; top = t")
	low := m.Splat(0xff800000)
	factor := m.Param("factor")
	eachRows(m, []GP{factor}, func(x []GP) {
		largest := overRows(m, x, func() Vec { return m.Copy(low) }, m.Max, func(acc, v Vec, _ *Chunk, _, _ int) {
			m.Set(acc, m.Max(v, acc))
		})
		if len(x) == 1 {
			m.StoreFirst(At{Base: factor}, m.MaxAcross(largest[0]))
		} else {
			m.StoreQuad(At{Base: factor}, m.MaxRows(largest), 0)
		}
	})
	top, factor := m.Param("top"), m.Param("factor")
	Stream(m, m.Param("rows"), 1, []GP{top, factor}, func(c *Chunk) {
		old := c.Load(top, 0)
		t := m.Max(c.Load(factor, 0), old)
		c.Store(top, 0, t)
		c.Store(factor, 0, weightOf(m, m.Sub(old, t)))
	})
	top, factor = m.Param("top"), m.Param("factor")
	sum := m.Param("sum")
	eachRows(m, []GP{top, sum, factor}, func(x []GP) {
		t := make([]Vec, len(x))
		for r := range t {
			t[r] = m.SplatAt(At{Base: top, Disp: 4 * r})
		}
		sums := overRows(m, x, func() Vec { return m.Copy(float(0)) }, m.Add, func(acc, v Vec, c *Chunk, r, i int) {
			e := weightOf(m, m.Sub(v, t[r]))
			c.Store(x[r], i, e)
			m.AddTo(acc, e)
		})
		if len(x) == 1 {
			all := rowSum(m, sums[0])
			m.MulAdd(all, m.SplatAt(At{Base: factor}), m.SplatAt(At{Base: sum}))
			m.StoreFirst(At{Base: sum}, all)
		} else {
			all := m.SumRows(sums)
			m.MulAddQuad(all, At{Base: factor}, At{Base: sum})
			m.StoreQuad(At{Base: sum}, all, 0)
		}
	})
	m.End()
}

// eachRows calls group for the rows of s: weightRows at a time, then one at a time. The
// arrays have a number for each row.
func eachRows(m Machine, arrays []GP, group func(x []GP)) {
	s, rows := m.Param("s"), m.Param("rows")
	for _, count := range sizesOf[m.Tier()].weightRows {
		m.Loop(rows, count, func() {
			sRow := m.Param("sRow")
			x := make([]GP, count)
			for r := range x {
				x[r] = m.CopyGP(s)
				m.AddGP(s, sRow)
			}
			group(x)
			for _, p := range arrays {
				m.AddImm(p, 4*count)
			}
		})
	}
}

// overRows goes over the keys of rows x side by side with some accumulators each, which each
// call of each adds a vector to; it returns them combined, one to a row. Lanes beyond the last
// key are -Inf.
func overRows(m Machine, x []GP, start func() Vec, combine func(Vec, Src) Vec, each func(acc, v Vec, c *Chunk, r, i int)) []Vec {
	acc := make([][]Vec, len(x))
	for r := range acc {
		for range sizesOf[m.Tier()].weightSums {
			acc[r] = append(acc[r], start())
		}
	}
	low := m.Splat(0xff800000)
	Stream(m, m.Param("keys"), len(acc[0]), x, func(c *Chunk) {
		for i := range c.Count {
			for r := range x {
				each(acc[r][i], c.LoadFill(x[r], i, low), c, r, i)
			}
		}
	})
	out := make([]Vec, len(x))
	for r, a := range acc {
		for len(a) > 1 { // neighbours first
			half := a[:0:0]
			for i := 0; i < len(a); i += 2 {
				half = append(half, combine(a[i], a[i+1]))
			}
			a = half
		}
		out[r] = a[0]
	}
	return out
}

// rowSum is the sum of one row's lanes, in the order of a row among others.
func rowSum(m Machine, v Vec) Vec {
	if len(sizesOf[m.Tier()].weightRows) == 1 {
		return m.SumAcross(v)
	}
	return m.SumRows([]Vec{v, v, v, v})
}

// attentionMass adds weights exp(s-lse) to what keys got, and gives the sum of
// w log w over them; a weight that is flushed counts as 0.
func attentionMass(m Machine) {
	m.Func("attentionMass", "func(mass *float32, s *float32, n int, lse float32) float32",
		"mass[j] += w, w = exp(s[j]-lse); the sum of w log w")
	mass, s, n, lse := m.Param("mass"), m.Param("s"), m.Param("n"), m.ParamSplat("lse")
	sum, low := newAccumulator(m.Zero), m.Splat(0xff800000)
	Stream(m, n, accumulators, []GP{mass, s}, func(c *Chunk) {
		for i := range c.Count {
			d := AtLeast(m, m.Sub(c.LoadFill(s, i, low), lse), float(-88))
			w := expOf(m, d, false)
			c.Store(mass, i, m.Add(w, c.Load(mass, i)))
			m.MulAdd(sum[i], w, d)
		}
	})
	m.End(sum.sum(m))
}

// softcap is dst[i] = c tanh(x[i] / c).
func softcap(m Machine) {
	m.Func("softcap", "func(dst *float32, c float32, x *float32, n int)", "dst[i] = c tanh(x[i] / c)")
	dst, x, n, limit := m.Param("dst"), m.Param("x"), m.Param("n"), m.ParamSplat("c")
	Stream(m, n, 2, []GP{dst, x}, func(s *Chunk) {
		for i := range s.Count {
			v := s.Load(x, i)
			a := m.Div(m.And(v, magnitude), limit)
			e := expOf(m, m.Mul(a, float(-2)), false)
			t := m.Div(m.Sub(m.Copy(float(1)), e), m.Add(e, float(1)))
			a2 := m.Mul(a, a)
			p := m.Mul(polynomial(m, a2, "tanh11", "tanh9", "tanh7", "tanh5", "tanh3"), a2)
			t = m.Select(m.Cmp(Less, a, c("tanhLimit")), m.Horner(p, a, a), t)
			s.Store(dst, i, m.Or(m.Mul(t, limit), m.And(v, signBit)))
		}
	})
	m.End()
}

// attentionKernels lists the full height first, then what is left of rows.
func attentionKernels() (list []kernel) {
	for _, rows := range []int{0, 4, 1} {
		list = append(list, attentionScores(rows), attentionValues(rows))
	}
	return append(list, attentionPack, attentionWeights, attentionMass)
}
