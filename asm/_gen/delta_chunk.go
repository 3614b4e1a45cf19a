package main

import (
	"fmt"

	. "github.com/subquad/subquad/asm/_gen/simd"
)

// The steps of a chunk of the recurrence of deltaStep, for a panel of the state [dim] and
// the rows u below it, of tokens of the chunk. Panels are those of the matrix product.

// deltaTile is some rows of a chunk: what they read from the state and from the rows u of
// tokens before them,
//
//	x[i] = by[i] (a[i] s) + sum over j < before of m[i][j] u[j].
//
// deltaSolve adds w[i] v[i] and solves for the rows themselves: those of u from before on, also
// times rest to where kept is,
//
//	u[i] = x[i] + w[i] v[i] + sum over j < i of m[i][before+j] u[before+j],
//
// and deltaAsk adds to x[i], which goes to dst, what rows up to its own are worth. For every
// four of dim two cache lines are prefetched from ahead on, and from aheadRow further on.
func deltaTile(rows int, solve bool) kernel {
	return func(m Machine) {
		height := tileRows(m, rows)
		if rows > 4 && m.Tier() != "AVX512" {
			return
		}
		const read = "dim int, s *float32, a *float32, aRow int, by *float32, before int, m *float32, mRow int, u *float32, ahead *float32, aheadRow int"
		size := fmt.Sprintf("%d rows of a panel of %d columns; strides in bytes", height, tileVectors(m)*m.Lanes())
		if solve {
			m.Func(tileName("deltaSolve", rows), "func("+read+", w *float32, v *float32, vRow int, rest *float32, kept *float32)", size)
		} else {
			m.Func(tileName("deltaAsk", rows), "func("+read+", dst *float32, dstRow int)", size)
		}
		acc := zeroTile(m, height)
		ahead, aheadRow := m.Param("ahead"), m.Param("aheadRow")
		tileProduct(m, acc, m.Param("dim"), m.Rows(m.Param("a"), m.Param("aRow"), height), m.Param("s"), func() {
			m.Prefetch(At{Base: ahead})
			m.Prefetch(At{Base: ahead, Disp: 64})
			m.AddGP(ahead, aheadRow)
		})
		by := m.Param("by")
		for i := range acc {
			factor := m.SplatAt(At{Base: by, Disp: 4 * i})
			for j := range acc[i] {
				acc[i][j] = m.Mul(acc[i][j], factor)
			}
		}
		if solve {
			w, v := m.Param("w"), m.Rows(m.Param("v"), m.Param("vRow"), height)
			for i := range acc {
				factor := m.SplatAt(At{Base: w, Disp: 4 * i})
				for j := range acc[i] {
					m.MulAdd(acc[i][j], factor, v.At(i).Plus(j*Bytes(m)))
				}
			}
		}
		u, between := m.Param("u"), m.Rows(m.Param("m"), m.Param("mRow"), height)
		tileProduct(m, acc, m.Param("before"), between, u, func() {})
		panel := tileVectors(m) * Bytes(m)
		for k := range height { // the triangle of the rows' own
			row, first := acc[k], k+1
			if !solve {
				row, first = make([]Vec, len(row)), k
				for j := range row {
					row[j] = m.Load(At{Base: u, Disp: k*panel + j*Bytes(m)}, nil)
				}
			}
			for i := first; i < height; i++ {
				x := m.SplatAt(between.At(i).Plus(4 * k))
				for j := range row {
					m.MulAdd(acc[i][j], x, row[j])
				}
			}
		}
		if !solve {
			dst := m.Rows(m.Param("dst"), m.Param("dstRow"), height)
			for i := range acc {
				for j, v := range acc[i] {
					m.Store(dst.At(i).Plus(j*Bytes(m)), nil, v)
				}
			}
			m.End()
			return
		}
		rest, kept := m.Param("rest"), m.Param("kept")
		for i := range acc {
			factor := m.SplatAt(At{Base: rest, Disp: 4 * i})
			for j, v := range acc[i] {
				at := i*panel + j*Bytes(m)
				m.Store(At{Base: u, Disp: at}, nil, v)
				m.Store(At{Base: kept, Disp: at}, nil, m.Mul(v, factor))
			}
		}
		m.End()
	}
}

// deltaWrite takes the state over a chunk, some rows of it at a time:
//
//	s[i] = scale[i] s[i] + sum over j < n of a[j][i] u[j]
//
// or, with after, scale[i] times the sum of both.
func deltaWrite(rows int, after bool) kernel {
	return func(m Machine) {
		height := tileRows(m, rows)
		if rows > 4 && m.Tier() != "AVX512" {
			return
		}
		name := "deltaWrite"
		if after {
			name += "After"
		}
		m.Func(tileName(name, rows), "func(tiles int, n int, s *float32, a *float32, aRow int, u *float32, scale *float32)",
			fmt.Sprintf("tiles of %d rows of a panel of %d columns; strides in bytes", height, tileVectors(m)*m.Lanes()))
		panel := tileVectors(m) * Bytes(m)
		s, a, aRow, scale := m.Param("s"), m.Param("a"), m.Param("aRow"), m.Param("scale")
		m.Loop(m.Param("tiles"), 1, func() {
			acc := make([][]Vec, height)
			for i := range acc {
				var factor Vec
				if !after {
					factor = m.SplatAt(At{Base: scale, Disp: 4 * i})
				}
				for j := range tileVectors(m) {
					at := At{Base: s, Disp: i*panel + j*Bytes(m)}
					if after {
						acc[i] = append(acc[i], m.Load(at, nil))
					} else {
						acc[i] = append(acc[i], m.Mul(factor, at))
					}
				}
			}
			from, u := m.CopyGP(a), m.Param("u")
			var columns Rows
			if HasPast(m) {
				next := m.ZeroGP()
				m.AddImm(next, 4)
				columns = m.Rows(from, next, height)
			}
			m.Loop(m.Param("n"), 1, func() {
				row := make([]Vec, tileVectors(m))
				for j := range row {
					row[j] = m.Load(At{Base: u, Disp: j * Bytes(m)}, nil)
				}
				for i := range acc {
					var x Vec
					if HasPast(m) {
						x = m.SplatPast(columns.At(i).Base, aRow)
					} else {
						x = m.SplatAt(At{Base: from, Disp: 4 * i})
					}
					for j := range row {
						m.MulAdd(acc[i][j], x, row[j])
					}
				}
				m.AddImm(u, panel)
				if !HasPast(m) {
					m.AddGP(from, aRow)
				}
			})
			for i := range acc {
				var factor Vec
				if after {
					factor = m.SplatAt(At{Base: scale, Disp: 4 * i})
				}
				for j, v := range acc[i] {
					if after {
						v = m.Mul(v, factor)
					}
					m.Store(At{Base: s, Disp: i*panel + j*Bytes(m)}, nil, v)
				}
			}
			m.AddImm(s, height*panel)
			m.AddImm(a, 4*height)
			m.AddImm(scale, 4*height)
		})
		m.End()
	}
}

// deltaCorner is as many rows of a product with a packed panel as a vector has lanes, and as
// many columns: the corner of a triangle.
func deltaCorner(m Machine) {
	if m.Tier() != "AVX512" {
		return // panels are as narrow as that elsewhere, or too few registers
	}
	m.Func("deltaCorner", "func(dim int, a *float32, aRow int, b *float32, dst *float32, dstRow int)",
		"dst = a b for 16 rows of a [dim] and the first 16 columns of a panel of 32; strides in bytes")
	var acc []Vec
	for range m.Lanes() {
		acc = append(acc, m.Zero())
	}
	a, b := m.Rows16(m.Param("a"), m.Param("aRow")), m.Param("b")
	m.Loop(m.Param("dim"), 1, func() {
		row := m.Load(At{Base: b}, nil)
		for i := range acc {
			m.MulAdd(acc[i], row, Each(a.At(i)))
		}
		m.AddImm(b, tileVectors(m)*Bytes(m))
		a.Advance(4)
	})
	dst := m.Rows16(m.Param("dst"), m.Param("dstRow"))
	for i := range acc {
		m.Store(dst.At(i), nil, acc[i])
	}
	m.End()
}

// deltaFall weighs products of rows of tokens by decays between them:
//
//	dst[i][j] = by[i] x[i][j] fall,  fall = step[j+1] step[j+2] ... step[i], 0 for j > i.
//
// one is where a 1 stands among zeros, as many before as there are tokens and behind as there
// are columns.
func deltaFall(m Machine) {
	m.Func("deltaFall", "func(width int, tokens int, step *float32, one *float32, by *float32, x *float32, dst *float32, row int)",
		"rows of x and dst are row bytes apart")
	width, offset := m.Param("width"), m.ZeroGP()
	columns(m, width, offset, []int{2, 1}, func(count int, t *Tail) {
		at := func(name string) GP { return paramFrom(m, name, offset) }
		fall := make([]Vec, count)
		for j := range fall {
			fall[j] = m.Zero()
		}
		one, x, dst, row, step, by := at("one"), at("x"), at("dst"), m.Param("row"), m.Param("step"), m.Param("by")
		m.Loop(m.Param("tokens"), 1, func() {
			s, factor := m.SplatAt(At{Base: step}), m.SplatAt(At{Base: by})
			for j := range fall {
				place := j * Bytes(m)
				next := m.Load(At{Base: one, Disp: place}, t)
				m.MulAdd(next, fall[j], s)
				m.Set(fall[j], m.Select(m.Cmp(Less, next, c("tiny")), float(0), next))
				v := m.Mul(m.Load(At{Base: x, Disp: place}, t), fall[j])
				m.Store(At{Base: dst, Disp: place}, t, m.Mul(v, factor))
			}
			m.AddImm(one, -4)
			m.AddGP(x, row)
			m.AddGP(dst, row)
			m.AddImm(step, 4)
			m.AddImm(by, 4)
		})
	})
	m.End()
}

// deltaKeys multiplies up the decays of key channels, and what rows are read with by them:
//
//	grow[t] = exp(logs[0]) exp(logs[1]) ... exp(logs[t]),
//	near[t] = k[t] / grow[t], left[t] = erase[t] grow[t], ask[t] = q[t] grow[t],
//
// with grow[t-1] for left, 1 before all, in deltaKeysFirst; the last grow goes to last. What
// decays leave is never less than tiny: where it is that, or a logarithm is above 0, the rest
// may be anything.
func deltaKeys(first bool) kernel {
	return func(m Machine) {
		name := "deltaKeys"
		if first {
			name += "First"
		}
		m.Func(name, "func(width int, tokens int, logs *float32, logsRow int, k *float32, erase *float32, q *float32, near *float32, left *float32, ask *float32, row int, last *float32)",
			"rows are row bytes apart, those of logs logsRow")
		width, offset := m.Param("width"), m.ZeroGP()
		columns(m, width, offset, []int{2, 1}, func(count int, t *Tail) {
			at := func(name string) GP { return paramFrom(m, name, offset) }
			down, up := make([]Vec, count), make([]Vec, count)
			for j := range down {
				down[j], up[j] = m.Copy(float(1)), m.Copy(float(1))
			}
			logs, k, erase, q, logsRow, row := at("logs"), at("k"), at("erase"), at("q"), m.Param("logsRow"), m.Param("row")
			near, left, ask := at("near"), at("left"), at("ask")
			m.Loop(m.Param("tokens"), 1, func() {
				for j := range down {
					place := j * Bytes(m)
					scaled := func(to, from GP, by Vec) {
						m.Store(At{Base: to, Disp: place}, t, m.Mul(by, m.Load(At{Base: from, Disp: place}, t)))
					}
					e, inverse := expPairOf(m, m.Load(At{Base: logs, Disp: place}, t))
					if first {
						scaled(left, erase, down[j])
					}
					m.Set(down[j], AtLeast(m, m.Mul(down[j], e), c("tiny")))
					m.Set(up[j], m.Mul(up[j], inverse))
					scaled(near, k, up[j])
					if !first {
						scaled(left, erase, down[j])
					}
					scaled(ask, q, down[j])
				}
				m.AddGP(logs, logsRow)
				for _, p := range []GP{k, erase, q, near, left, ask} {
					m.AddGP(p, row)
				}
			})
			last := at("last")
			for j := range down {
				m.Store(At{Base: last, Disp: j * Bytes(m)}, t, down[j])
			}
		})
		m.End()
	}
}

// expPairOf returns exp(x) and exp(-x) for -86 <= x <= 0. What is less counts as -86, what is
// more may give anything, and NaN gives NaN.
func expPairOf(m Machine, x Vec) (down, up Vec) {
	x = AtLeast(m, x, float(-86))
	if m.Tier() != "AVX512" { // whose ScaleExp2 keeps NaN
		x = m.Min(x, m.Splat(float(86)))
	}
	z, n := rounded(m, x, c("log2E"))
	r := m.Copy(x)
	m.MulSub(r, n, c("ln2Hi"))
	m.MulSub(r, n, c("ln2Lo"))
	// exp(r) = 1 + odd + even, exp(-r) = 1 - odd + even
	s := m.Mul(r, r)
	even := m.Mul(polynomial(m, s, "exp6", "exp4", "exp2"), s)
	odd := m.Horner(polynomial(m, s, "exp5", "exp3"), s, float(1))
	p, q := m.Copy(even), even
	m.MulAdd(p, r, odd)
	m.MulSub(q, r, odd)
	minus := m.Sub(m.Zero(), n)
	down = m.ScaleExp2(m.Add(p, float(1)), n, z)
	up = m.ScaleExp2(m.Add(q, float(1)), minus, m.Add(minus, c("roundMagic")))
	if m.Tier() != "AVX512" {
		down = m.Select(m.Cmp(LessEqual, x, float(86)), down, x)
	}
	return down, up
}

// deltaHeights are how many rows the kernels of a chunk take: the full height (0), half of it
// or more, and the last ones.
var deltaHeights = []int{0, 8, 4, 1}

func deltaChunkKernels() (list []kernel) {
	for _, rows := range deltaHeights {
		list = append(list, deltaTile(rows, true), deltaTile(rows, false), deltaWrite(rows, false), deltaWrite(rows, true))
	}
	return append(list, deltaCorner, deltaFall, deltaKeys(false), deltaKeys(true))
}

func deltaChunkChoices() []choice {
	const read = "dim int, s *float32, a *float32, aRow int, by *float32, before int, m *float32, mRow int, u *float32, ahead *float32, aheadRow int, "
	list := []choice{
		{name: "deltaSolve", params: read + "w *float32, v *float32, vRow int, rest *float32, kept *float32"},
		{name: "deltaAsk", params: read + "dst *float32, dstRow int"},
		{name: "deltaWrite", params: "tiles int, n int, s *float32, a *float32, aRow int, u *float32, scale *float32"},
	}
	after := list[2]
	after.name += "After"
	list = append(list, after)
	for i := range list {
		c := &list[i]
		c.doc = c.name + "SIMD takes rows of a panel: 0 for the tier's full height, 8 (AVX-512), 4 or 1."
		c.by, c.key = "rows int", "rows"
		for _, rows := range deltaHeights {
			c.members = append(c.members, member{key: fmt.Sprint(rows), kernel: tileName(c.name, rows)})
		}
		*c = newChoice(*c)
	}
	return list
}
