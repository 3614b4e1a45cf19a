package main

import (
	"fmt"

	. "github.com/subquad/subquad/asm/_gen/simd"
)

// Decoding from keys and values of int8 by products of integers: those of a shadow, but with
// keys and values where they were appended. Keys are turned, 16 at a time, into the panels of a
// shadow, in registers; of values, four keys' bytes are put side by side. Only AVX-512 has
// these kernels: a vector of AVX2 without VNNI multiplies no more integers than float32.

// integerKeys is how many keys IntegerTile weighs at once: sums of as many products of 14 and
// 8 bits stay below 2^31.
const integerKeys = 256

// integerStreams is how many streams the kernels prefetch side by side.
const integerStreams = 4

func hasIntegers(m Machine) bool { return m.Tier() == "AVX512" }

// integerScores gives blocks of 16 keys their scores with some rows of queries.
func integerScores(rows int, dot bool) kernel {
	return func(m Machine) {
		if !hasIntegers(m) {
			return
		}
		name := fmt.Sprint("integerScores", rows)
		if dot {
			name += "Dot"
		}
		m.Func(name, "func("+integerScoreParams+")",
			fmt.Sprintf("s[i] = scale factor[i] (128 q[i][0] + q[i][1]) . k, for %d rows of q [groups][%[1]d][2] of four int8 each and blocks of 16 keys of 4*words int8;\nbias [%[1]d][2] is what sums begin with; kNext is from the last whole 64 bytes of a block's first key to the next block's", rows))
		keys := m.Rows16(m.Param("k"), m.Param("kRow"))
		next := m.Rows(m.Param("next"), m.Param("nextRow"), integerStreams)
		blocks := m.Param("blocks")
		const lines = shadowPanel / integerStreams // of 64 bytes
		sets := max(1, 4/rows)                     // of sums, which take turns, so that none waits for itself
		m.Loop(blocks, 1, func() {
			acc := make([][][2]Vec, sets)
			bias := m.Param("bias")
			for t := range acc {
				acc[t] = make([][2]Vec, rows)
				for i := range acc[t] {
					for p := range 2 {
						if acc[t][i][p] = m.Copy(Const(0)); t == 0 {
							acc[t][i][p] = m.SplatAt(At{Base: bias, Disp: 4 * (2*i + p)})
						}
					}
				}
			}
			words, q := m.Param("words"), m.Param("q")
			step := func(t *Tail) {
				var some []Vec
				for j := range shadowPanel {
					some = append(some, m.Int8Factors(m.Load(keys.At(j), t)))
				}
				for g, panel := range m.Transpose(some) {
					m.Prefetch(next.At(g % integerStreams).Plus(64 * (g / integerStreams))) // far from each other
					for i, planes := range acc[g%sets] {
						for p := range planes {
							m.DotInt8(planes[p], panel, Each{Base: q, Disp: 4 * ((g*rows+i)*2 + p)}, dot)
						}
					}
				}
			}
			m.Loop(words, m.Lanes(), func() {
				step(nil)
				keys.Advance(64)
				next.Advance(64 * lines)
				m.AddImm(q, 8*rows*shadowPanel)
			})
			m.Tail(words, step)
			keys.AdvanceGP(m.Param("kNext"))
			factor := m.Param("factor")
			var x []Vec
			for i := range rows {
				planes := acc[0][i]
				for t := 1; t < sets; t++ {
					for p := range planes {
						planes[p] = m.AddInt(planes[p], acc[t][i][p])
					}
				}
				x = append(x, m.Mul(m.FloatOfInt(m.AddInt(m.ShlInt(planes[0], 7), planes[1])), Each{Base: factor, Disp: 4 * i}))
			}
			done := m.Param("blocks")
			m.SubGP(done, blocks)
			m.ShlImm(done, 6)
			scales, s := m.Param("scales"), m.Param("s")
			m.AddGP(scales, done)
			m.AddGP(s, done)
			scale := m.Load(At{Base: scales}, nil)
			out := m.Rows(s, m.Param("sRow"), rows)
			for i := range x {
				m.Store(out.At(i), nil, m.Mul(x[i], scale))
			}
		})
		m.End()
	}
}

// integerValues adds up weighted values of 64 columns.
func integerValues(rows int, dot bool) kernel {
	return func(m Machine) {
		if !hasIntegers(m) {
			return
		}
		name := fmt.Sprint("integerValues", rows)
		if dot {
			name += "Dot"
		}
		m.Func(name, "func("+integerValueParams+")",
			fmt.Sprintf("sums[i] += (128 w[i][0] + w[i][1]) . v, for %d rows of w [%[1]d][2][%d] and groups of four keys, of which v has 4*words int8: up to 64;\ncolumns stand in sums as they come: those with the same c/4%%4 together", rows, integerKeys))
		pass := func(t *Tail, high bool) {
			acc := make([][2][2]Vec, rows) // [planes][vectors]
			for i := range acc {
				for p := range acc[i] {
					for j := range acc[i][p] {
						acc[i][p][j] = m.Copy(Const(0))
					}
				}
			}
			w, row, four := m.Param("w"), m.Param("vRow"), m.Param("vRow")
			m.ShlImm(four, 2)
			v := m.Rows(m.Param("v"), row, 4)
			next := m.Rows(m.Param("next"), m.Param("nextRow"), integerStreams)
			m.Loop(m.Param("groups"), 1, func() {
				var x []Vec
				for j := range 4 {
					x = append(x, m.Load(v.At(j), t))
				}
				asked := 0
				if high {
					asked = 2
				}
				a, b := m.InterleaveBytes(x[0], x[1], high), m.InterleaveBytes(x[2], x[3], high)
				columns := [2]Vec{m.InterleavePairs(a, b, false), m.InterleavePairs(a, b, true)}
				for i := range acc {
					for p := range acc[i] {
						if 2*i+p == 0 || 2*i+p == rows { // half of the streams in each pass, far from each other
							m.Prefetch(next.At(asked))
							asked++
						}
						y := m.SplatAt(At{Base: w, Disp: integerKeys * (2*i + p)})
						for j, c := range columns {
							m.DotUint8(acc[i][p][j], c, y, dot)
						}
					}
				}
				m.AddImm(w, 4)
				v.AdvanceGP(four)
				next.Advance(64)
			})
			sums := m.Rows(m.Param("sums"), m.Param("sumRow"), rows)
			for i, planes := range acc {
				for j := range 2 {
					at := sums.At(i).Plus(j * Bytes(m))
					if high {
						at = at.Plus(2 * Bytes(m))
					}
					m.Store(at, nil, m.AddInt(m.AddInt(m.ShlInt(planes[0][j], 7), planes[1][j]), at))
				}
			}
		}
		whole := m.Param("words")
		m.Loop(whole, m.Lanes(), func() {
			pass(nil, false)
			pass(nil, true)
		})
		m.Tail(whole, func(t *Tail) {
			pass(t, false)
			pass(t, true)
		})
		m.End()
	}
}

// integerPeaks finds the largest numbers of rows, or of rows times scales.
func integerPeaks(scaled bool) kernel {
	return func(m Machine) {
		if !hasIntegers(m) {
			return
		}
		name, scale, doc := "integerPeaks", "", "x[i]"
		if scaled {
			name, scale, doc = "integerScaledPeaks", "scales *float32, ", "x[i] scales"
		}
		m.Func(name, "func(rows int, cols int, x *float32, xRow int, "+scale+"peaks *float32)", "peaks[i] = the largest |"+doc+"|, or NaN where one is")
		x, xRow, peaks := m.Param("x"), m.Param("xRow"), m.Param("peaks")
		m.Loop(m.Param("rows"), 1, func() {
			arrays := []GP{m.CopyGP(x)}
			if scaled {
				arrays = append(arrays, m.Param("scales"))
			}
			seen := m.Record()
			m.NoNaN(seen)
			most := m.Copy(Const(0))
			Stream(m, m.Param("cols"), 1, arrays, func(k *Chunk) {
				y := k.Load(arrays[0], 0)
				if scaled {
					y = m.Mul(y, k.Load(arrays[1], 0))
				}
				m.SeeNaN(seen, y, y)
				m.Set(most, m.Max(most, m.And(y, Const(0x7fffffff))))
			})
			m.StoreFirst(At{Base: peaks}, m.MaxLanes(most, seen))
			m.AddGP(x, xRow)
			m.AddImm(peaks, 4)
		})
		m.End()
	}
}

// integerQueries makes integers of queries.
func integerQueries(m Machine) {
	if !hasIntegers(m) {
		return
	}
	m.Func("integerQueries", "func(rows int, cols int, x *float32, xRow int, units *float32, planes *byte, plane int, sums *float32)",
		"planes[i] [2][plane] = the nearest integer n to units[i] x[i]: floor((n + 64) / 128), and the rest from -64 to 63; sums[i] [2] those of a plane")
	x, xRow, units, planes, sums := m.Param("x"), m.Param("xRow"), m.Param("units"), m.Param("planes"), m.Param("sums")
	m.Loop(m.Param("rows"), 1, func() {
		at, high, low := m.CopyGP(x), m.CopyGP(planes), m.CopyGP(planes)
		m.AddGP(low, m.Param("plane"))
		unit, total := m.SplatAt(At{Base: units}), [2]Vec{m.Copy(Const(0)), m.Copy(Const(0))}
		cols := m.Param("cols")
		Stream(m, cols, 1, []GP{at}, func(k *Chunk) {
			z := m.Add(m.Mul(k.Load(at, 0), unit), c("roundMagic"))
			n := m.AddInt(z, Const(1<<32+1<<13+64-magicBits)) // and so not negative
			for p, y := range [2]Vec{m.AddInt(m.And(m.ShrInt(n, 7), Const(255)), Const(minus64)), m.AddInt(m.And(n, Const(127)), Const(minus64))} {
				m.StoreBytes(At{Base: [2]GP{high, low}[p]}, y)
				m.Set(total[p], m.AddInt(total[p], y))
			}
			m.AddImm(high, 16)
			m.AddImm(low, 16)
		})
		for p := range total {
			m.StoreFirst(At{Base: sums, Disp: 4 * p}, m.SumLanes(m.FloatOfInt(total[p])))
		}
		m.AddGP(x, xRow)
		m.AddImm(units, 4)
		m.AddImm(sums, 8)
		m.AddGP(planes, m.Param("plane"))
		m.AddGP(planes, m.Param("plane"))
	})
	m.End()
}

const (
	magicBits = 0x4b400000 // of roundMagic
	minus64   = 1<<32 - 64
)

// integerPlanes makes integers of weights.
func integerPlanes(m Machine) {
	if !hasIntegers(m) {
		return
	}
	m.Func("integerPlanes", "func(rows int, keys int, w *float32, wRow int, scales *float32, units *float32, planes *byte)",
		fmt.Sprintf("planes[i] [2][%d] = the nearest integer to units[i] scales w[i], or 0 where that is negative or NaN: times 128, and the rest", integerKeys))
	w, wRow, units, planes := m.Param("w"), m.Param("wRow"), m.Param("units"), m.Param("planes")
	m.Loop(m.Param("rows"), 1, func() {
		at, scales, n, to := m.CopyGP(w), m.Param("scales"), m.Param("keys"), m.CopyGP(planes)
		unit := m.SplatAt(At{Base: units})
		Stream(m, n, 1, []GP{at, scales}, func(k *Chunk) {
			x := m.Mul(m.Mul(k.Load(at, 0), k.Load(scales, 0)), unit)
			z := m.Add(m.Max(x, Const(0)), c("roundMagic"))
			m.StoreBytes(At{Base: to}, m.And(m.ShrInt(z, 7), Const(127)))
			m.StoreBytes(At{Base: to, Disp: integerKeys}, m.And(z, Const(127)))
			m.AddImm(to, 16)
		})
		m.AddGP(w, wRow)
		m.AddImm(units, 4)
		m.AddImm(planes, 2*integerKeys)
	})
	m.End()
}

// integerSums adds sums of integers to outputs.
func integerSums(m Machine) {
	if !hasIntegers(m) {
		return
	}
	m.Func("integerSums", "func(rows int, cols int, sums *int32, sumRow int, units *float32, o *float32, oRow int, factor *float32)",
		"o[i] = factor[i] o[i] + units[i] sums[i], of cols columns, a multiple of 64, which stand in sums as integerValues leaves them")
	sums, o, units, factor := m.Param("sums"), m.Param("o"), m.Param("units"), m.Param("factor")
	m.Loop(m.Param("rows"), 1, func() {
		from, to := m.CopyGP(sums), m.CopyGP(o)
		unit, old := m.SplatAt(At{Base: units}), m.SplatAt(At{Base: factor})
		m.Loop(m.Param("cols"), 4*m.Lanes(), func() {
			var x []Vec
			for j := range 4 {
				x = append(x, m.Load(At{Base: from, Disp: j * Bytes(m)}, nil))
			}
			for j, y := range m.TransposeQuarters(x) {
				at := At{Base: to, Disp: j * Bytes(m)}
				m.Store(at, nil, m.Add(m.Mul(old, at), m.Mul(m.FloatOfInt(y), unit)))
			}
			m.AddImm(from, 4*Bytes(m))
			m.AddImm(to, 4*Bytes(m))
		})
		m.AddGP(sums, m.Param("sumRow"))
		m.AddGP(o, m.Param("oRow"))
		m.AddImm(units, 4)
		m.AddImm(factor, 4)
	})
	m.End()
}

// integerKernels lists them all.
func integerKernels() (list []kernel) {
	for _, dot := range []bool{false, true} {
		for _, rows := range decodeValueRows {
			list = append(list, integerScores(rows, dot), integerValues(rows, dot))
		}
	}
	return append(list, integerQueries, integerPeaks(false), integerPeaks(true), integerPlanes, integerSums)
}

// integerChoices are those among the kernels, by rows and by the unit that multiplies int8 in fours.
func integerChoices() []choice {
	by := func(name, doc, params string) choice {
		c := choice{name: name, doc: doc, by: "rows int, dot int", key: "rows<<1 | dot", params: params}
		for _, rows := range decodeValueRows {
			for dot, suffix := range []string{"", "Dot"} {
				c.members = append(c.members, member{key: fmt.Sprintf("%d<<1 | %d", rows, dot), kernel: fmt.Sprint(name, rows, suffix)})
			}
		}
		return newChoice(c)
	}
	return []choice{
		by("integerScores", "integerScoresSIMD gives some query rows their scores with blocks of 16 keys; dot is 1 where the processor multiplies int8 in fours.", integerScoreParams),
		by("integerValues", "integerValuesSIMD adds up values that are weighted for some rows, of up to 64 columns.", integerValueParams),
	}
}

const (
	integerScoreParams = "words int, blocks int, k *byte, kRow int, kNext int, scales *float32, q *int32, bias *int32, factor *float32, next *byte, nextRow int, s *float32, sRow int"
	integerValueParams = "words int, groups int, w *byte, v *byte, vRow int, next *byte, nextRow int, sums *int32, sumRow int"
)
