package main

import (
	"fmt"
	"math/bits"

	. "github.com/subquad/subquad/asm/_gen/simd"
)

// The recurrences of state-space models. A vector runs across channels, and the
// states of its channels stay in registers while time goes by.

// scan is the selective scan of one vector of channels:
//
//	h[n] = 2^(dt[t] a[n]) h[n] + dt[t] x[t] b[t][n]
//	y[t] = a[-1] x[t] + sum over n of c[t][n] h[n],
//
// or, with more, y[t] += the sum. With vectors, b and c have a vector for each
// state, else a number.
func scan(name string, states int, vectors, more bool) kernel {
	if more {
		name += "More"
	}
	return func(m Machine) {
		count := states
		if count == 0 {
			count = sizesOf[m.Tier()].scanStates
		}
		kind := "a number for each state in b and c"
		if vectors {
			kind = "a vector for each state in b and c"
		}
		if more {
			kind += "; adds to y"
		}
		m.Func(name, "func(tokens int, dt *float32, dtRow int, x *float32, xRow int, y *float32, yRow int, a *float32, h *float32, b *float32, bRow int, c *float32, cRow int)",
			fmt.Sprintf("%d states of %d channels; %s; strides in bytes", count, m.Lanes(), kind))
		state := func(base GP, n int) At { return At{Base: base, Disp: 4 * scanBlock * n} }
		h, stored := make([]Vec, count), m.Param("h")
		for n := range h {
			h[n] = m.Load(state(stored, n), nil)
		}
		dtP, dtRow, xP, xRow, yP, yRow, a := m.Param("dt"), m.Param("dtRow"), m.Param("x"), m.Param("xRow"), m.Param("y"), m.Param("yRow"), m.Param("a")
		b, bRow, c, cRow := m.Param("b"), m.Param("bRow"), m.Param("c"), m.Param("cRow")
		element := func(base GP, n int) Src {
			if vectors {
				return state(base, n)
			}
			return Each{Base: base, Disp: 4 * n}
		}
		m.Loop(m.Param("tokens"), 1, func() {
			dt, u := m.Load(At{Base: dtP}, nil), m.Load(At{Base: xP}, nil)
			var sums []Vec
			if more {
				sums = append(sums, m.Load(At{Base: yP}, nil))
			} else {
				sums = append(sums, m.Mul(u, state(a, -1)))
			}
			u = m.Mul(u, dt)
			if m.Lanes() == 16 {
				sums = append(sums, m.Zero())
			}
			for n := range h {
				decay := exp2Of(m, m.Mul(dt, state(a, n)))
				write := m.Mul(u, element(b, n))
				m.MulAdd(write, h[n], decay)
				m.Set(h[n], write)
				m.MulAdd(sums[n%len(sums)], h[n], element(c, n))
			}
			for _, s := range sums[1:] {
				m.AddTo(sums[0], s)
			}
			m.Store(At{Base: yP}, nil, sums[0])
			m.AddGP(dtP, dtRow)
			m.AddGP(xP, xRow)
			m.AddGP(yP, yRow)
			m.AddGP(b, bRow)
			m.AddGP(c, cRow)
		})
		stored = m.Param("h")
		for n := range h {
			m.Store(state(stored, n), nil, h[n])
		}
		m.End()
	}
}

// exp2Of returns 2^t, +Inf for t >= 128; what is below 2^-126 becomes that.
func exp2Of(m Machine, t Vec) Vec {
	t = AtLeast(m, t, c("exp2Least"))
	if m.Tier() != "AVX512" { // whose ScaleExp2 overflows by itself
		t = m.Min(m.Splat(c("exp2Most")), t)
	}
	z := m.Add(t, c("roundMagic"))
	n := m.Sub(z, c("roundMagic"))
	g := m.Sub(n, t)
	p := polynomial(m, g, "pow5", "pow4", "pow3", "pow2", "pow1")
	p = m.Horner(p, g, float(1))
	return m.ScaleExp2(p, n, z)
}

// columns runs vectors over width channels: as many vectors at a time as counts says, the
// most first, and what is left masked. offset is how far it has come, in bytes.
func columns(m Machine, width, offset GP, counts []int, vectors func(count int, t *Tail)) {
	for _, count := range counts {
		m.Loop(width, count*m.Lanes(), func() {
			vectors(count, nil)
			m.AddImm(offset, count*Bytes(m))
		})
	}
	m.Tail(width, func(t *Tail) {
		vectors(1, t)
		AdvanceTail(m, t, offset)
	})
}

// paramFrom is a pointer among the parameters, offset bytes on.
func paramFrom(m Machine, name string, offset GP) GP {
	p := m.Param(name)
	m.AddGP(p, offset)
	return p
}

// outer is one token of a recurrence whose state is a matrix [states, n]:
//
//	s[i][j] = decay s[i][j] + b[i] x[j]
//	y[j] = sum over i of c[i] s[i][j].
func outer(m Machine) {
	m.Func("outerStep", "func(width int, states int, s *float32, sRow int, b *float32, c *float32, x *float32, y *float32, decay float32)",
		"states rows of width channels; sRow in bytes")
	width, decay := m.Param("width"), m.ParamSplat("decay")
	offset := m.ZeroGP()
	vectors := func(count int, t *Tail) {
		at := func(name string) GP { return paramFrom(m, name, offset) }
		x, y := make([]Vec, count), make([]Vec, count)
		from := at("x")
		for j := range x {
			x[j], y[j] = m.Load(At{Base: from, Disp: j * Bytes(m)}, t), m.Zero()
		}
		s, sRow, b, c := at("s"), m.Param("sRow"), m.Param("b"), m.Param("c")
		m.Loop(m.Param("states"), 1, func() {
			bs, cs := m.SplatAt(At{Base: b}), m.SplatAt(At{Base: c})
			for j := range x {
				place := At{Base: s, Disp: j * Bytes(m)}
				v := m.Mul(x[j], bs)
				m.MulAdd(v, decay, m.Load(place, t))
				m.Store(place, t, v)
				m.MulAdd(y[j], v, cs)
			}
			m.AddGP(s, sRow)
			m.AddImm(b, 4)
			m.AddImm(c, 4)
		})
		to := at("y")
		for j := range y {
			m.Store(At{Base: to, Disp: j * Bytes(m)}, t, y[j])
		}
	}
	columns(m, width, offset, []int{4, 1}, vectors)
	m.End()
}

// combine is what outer reads where nothing decays or is written:
//
//	y[j] = sum over i of c[i] s[i][j].
func combine(m Machine) {
	m.Func("combine", "func(width int, states int, s *float32, sRow int, c *float32, y *float32)",
		"states rows of width channels; sRow in bytes")
	width, offset := m.Param("width"), m.ZeroGP()
	vectors := func(count int, t *Tail) {
		y := make([]Vec, count)
		for j := range y {
			y[j] = m.Zero()
		}
		s, sRow, c := m.Param("s"), m.Param("sRow"), m.Param("c")
		m.AddGP(s, offset)
		m.Loop(m.Param("states"), 1, func() {
			cs := m.SplatAt(At{Base: c})
			for j := range y {
				m.MulAdd(y[j], m.Load(At{Base: s, Disp: j * Bytes(m)}, t), cs)
			}
			m.AddGP(s, sRow)
			m.AddImm(c, 4)
		})
		to := m.Param("y")
		m.AddGP(to, offset)
		for j := range y {
			m.Store(At{Base: to, Disp: j * Bytes(m)}, t, y[j])
		}
	}
	columns(m, width, offset, []int{4, 1}, vectors)
	m.End()
}

// accumulate is some tokens of a recurrence without decay, for rows rows of the
// state and its read:
//
//	s[i][j] += b[t][i] x[t][j]
//	y[t][j] = sum over i of c[t][i] s[i][j],
//
// or, with more, y[t] += the sum. bc holds b and c of the rows, token after token. With last,
// y[t] is then multiplied by scale[t].
func accumulate(rows int, more, last bool) kernel {
	name, params, doc := fmt.Sprint("accumulate", rows), "", ""
	if more {
		name += "More"
	}
	if last {
		name, params, doc = name+"Last", ", scale *float32", "; y[t] is scaled at the end"
	}
	return func(m Machine) {
		m.Func(name, "func(tokens int, width int, s *float32, sRow int, bc *float32, bcRow int, x *float32, xRow int, y *float32, yRow int"+params+")",
			fmt.Sprintf("%d row(s) of width channels; strides in bytes%s", rows, doc))
		width, offset := m.Param("width"), m.ZeroGP()
		vectors := func(count int, t *Tail) {
			at := func(name string) GP { return paramFrom(m, name, offset) }
			place := func(base GP, j int) At { return At{Base: base, Disp: j * Bytes(m)} }
			row, sRow := at("s"), m.Param("sRow")
			s := make([][]Vec, rows)
			for i := range s {
				for j := range count {
					s[i] = append(s[i], m.Load(place(row, j), t))
				}
				m.AddGP(row, sRow)
			}
			bc, bcRow, x, xRow, y, yRow := m.Param("bc"), m.Param("bcRow"), at("x"), m.Param("xRow"), at("y"), m.Param("yRow")
			var scale GP
			if last {
				scale = m.Param("scale")
			}
			m.Loop(m.Param("tokens"), 1, func() {
				xs, ys := make([]Vec, count), make([]Vec, count)
				for j := range count {
					xs[j] = m.Load(place(x, j), t)
					if more {
						ys[j] = m.Load(place(y, j), t)
					}
				}
				for i := range s {
					b, c := m.SplatAt(At{Base: bc, Disp: 4 * i}), m.SplatAt(At{Base: bc, Disp: 4 * (rows + i)})
					for j := range count {
						m.MulAdd(s[i][j], b, xs[j])
						if i == 0 && !more {
							ys[j] = m.Mul(c, s[i][j])
						} else {
							m.MulAdd(ys[j], c, s[i][j])
						}
					}
				}
				if last {
					by := m.SplatAt(At{Base: scale})
					for j := range count {
						ys[j] = m.Mul(ys[j], by)
					}
					m.AddImm(scale, 4)
				}
				for j := range count {
					m.Store(place(y, j), t, ys[j])
				}
				m.AddGP(bc, bcRow)
				m.AddGP(x, xRow)
				m.AddGP(y, yRow)
			})
			row = at("s")
			for i := range s {
				for j := range count {
					m.Store(place(row, j), t, s[i][j])
				}
				m.AddGP(row, sRow)
			}
		}
		most := 4
		if m.Tier() == "AVX2" {
			most = 2
		}
		columns(m, width, offset, []int{most, 1}, vectors)
		m.End()
	}
}

// scaleRows is dst[t][i] = scale[t] x[t][i].
func scaleRows(m Machine) {
	m.Func("scaleRows", "func(rows int, width int, dst *float32, dstRow int, x *float32, xRow int, scale *float32)",
		"dst[t][i] = scale[t]*x[t][i]; strides in bytes")
	width, offset := m.Param("width"), m.ZeroGP()
	vectors := func(count int, t *Tail) {
		at := func(name string) GP { return paramFrom(m, name, offset) }
		dst, x, dstRow, xRow, scale := at("dst"), at("x"), m.Param("dstRow"), m.Param("xRow"), m.Param("scale")
		m.Loop(m.Param("rows"), 1, func() {
			s := m.SplatAt(At{Base: scale})
			for j := range count {
				m.Store(At{Base: dst, Disp: j * Bytes(m)}, t, m.Mul(m.Load(At{Base: x, Disp: j * Bytes(m)}, t), s))
			}
			m.AddGP(dst, dstRow)
			m.AddGP(x, xRow)
			m.AddImm(scale, 4)
		})
	}
	columns(m, width, offset, []int{4, 2, 1}, vectors)
	m.End()
}

// rowScales is what rows are multiplied by to have a length.
func rowScales(m Machine) {
	m.Func("rowScales", "func(rows int, width int, dst *float32, scale float32, x *float32, xRow int, eps float32)",
		"dst[t] = scale / sqrt(eps + sum over i of x[t][i]^2); strides in bytes")
	dst, x, xRow := m.Param("dst"), m.Param("x"), m.Param("xRow")
	m.Loop(m.Param("rows"), 1, func() {
		sums := []Vec{m.Zero(), m.Zero()}
		from := m.CopyGP(x)
		Stream(m, m.Param("width"), len(sums), []GP{from}, func(c *Chunk) {
			for i := range c.Count {
				v := c.Load(from, i)
				m.MulAdd(sums[i], v, v)
			}
		})
		m.StoreFirst(At{Base: dst}, m.SumLanes(m.Add(sums[0], sums[1])))
		m.AddImm(dst, 4)
		m.AddGP(x, xRow)
	})
	scale, eps := m.ParamSplat("scale"), m.ParamSplat("eps")
	dst = m.Param("dst")
	Stream(m, m.Param("rows"), 1, []GP{dst}, func(c *Chunk) {
		c.Store(dst, 0, m.Div(scale, m.Sqrt(m.Add(c.Load(dst, 0), eps))))
	})
	m.End()
}

// prefetch asks for the cache lines of rows of x, of 16 elements each.
func prefetch(m Machine) {
	m.Func("prefetch", "func(rows int, lines int, x *float32, xRow int)", "the cache lines from each row of x on")
	x := m.Param("x")
	m.Loop(m.Param("rows"), 1, func() {
		line := m.CopyGP(x)
		m.Loop(m.Param("lines"), 1, func() {
			m.Prefetch(At{Base: line})
			m.AddImm(line, 64)
		})
		m.AddGP(x, m.Param("xRow"))
	})
	m.End()
}

// copyPanel copies rows of x, as wide as a panel. Where they stand far apart the processor
// does not foresee the next, so that they are asked for some rows ahead.
func copyPanel(m Machine) {
	size := tileVectors(m) * Bytes(m)
	m.Func("copyPanel", "func(rows int, panel *float32, x *float32, xRow int)",
		fmt.Sprintf("panel = rows of x of %d elements", size/4))
	const far = 16 // rows
	panel, x, xRow := m.Param("panel"), m.Param("x"), m.Param("xRow")
	ahead := m.CopyGP(xRow)
	m.ShlImm(ahead, bits.TrailingZeros(far))
	m.AddGP(ahead, x)
	m.Loop(m.Param("rows"), 1, func() {
		for at := 0; at < size; at += 64 {
			m.Prefetch(At{Base: ahead, Disp: at})
		}
		for at := 0; at < size; at += Bytes(m) {
			m.Store(At{Base: panel, Disp: at}, nil, m.Load(At{Base: x, Disp: at}, nil))
		}
		m.AddGP(ahead, xRow)
		m.AddGP(x, xRow)
		m.AddImm(panel, size)
	})
	m.End()
}

// flush is x[i] = 0 where |x[i]| is tiny.
func flush(m Machine) {
	m.Func("flush", "func(x *float32, n int)", "x[i] = 0 where |x[i]| < tiny")
	x, n := m.Param("x"), m.Param("n")
	Stream(m, n, 4, []GP{x}, func(s *Chunk) {
		for i := range s.Count {
			v := s.Load(x, i)
			s.Store(x, i, m.Select(m.Cmp(Less, m.And(v, magnitude), c("tiny")), float(0), v))
		}
	})
	m.End()
}

func scanKernels() (list []kernel) {
	for _, more := range []bool{false, true} {
		list = append(list, scan("scanFull", 0, false, more), scan("scan4", 4, false, more), scan("scanVector4", 4, true, more))
	}
	return list
}
