package main

import . "github.com/subquad/subquad/asm/_gen/simd"

// Sums are kept in four registers, so that additions need not wait for each
// other, and put together in a fixed order: ((0+1)+(2+3)), then across lanes.

const accumulators = 4

type accumulator [accumulators]Vec

func newAccumulator(make func() Vec) (a accumulator) {
	for i := range a {
		a[i] = make()
	}
	return a
}

func (a accumulator) sum(m Machine) Vec {
	return m.SumLanes(m.Add(m.Add(a[0], a[1]), m.Add(a[2], a[3])))
}

// sumOver is the sum of terms over two arrays.
func sumOver(name, doc string, term func(m Machine, acc Vec, s *Chunk, a, b GP, i int)) kernel {
	return func(m Machine) {
		m.Func(name, "func(a *float32, b *float32, n int) float32", doc)
		a, b, n := m.Param("a"), m.Param("b"), m.Param("n")
		acc := newAccumulator(m.Zero)
		Stream(m, n, accumulators, []GP{a, b}, func(s *Chunk) {
			for i := range s.Count {
				term(m, acc[i], s, a, b, i)
			}
		})
		m.End(acc.sum(m))
	}
}

func dot(m Machine) {
	sumOver("dot", "sum of a[i]*b[i]", func(m Machine, acc Vec, s *Chunk, a, b GP, i int) {
		m.MulAdd(acc, s.Load(a, i), s.Load(b, i))
	})(m)
}

func squaredDistance(m Machine) {
	sumOver("squaredDistance", "sum of (a[i]-b[i])^2", func(m Machine, acc Vec, s *Chunk, a, b GP, i int) {
		d := m.Sub(s.Load(a, i), s.Load(b, i))
		m.MulAdd(acc, d, d)
	})(m)
}

// cosine leaves a.b, a.a and b.b, from which asm.Cosine is made.
func cosine(m Machine) {
	m.Func("cosine", "func(sums *float32, a *float32, b *float32, n int)", "sums = a.b, a.a, b.b")
	a, b, n := m.Param("a"), m.Param("b"), m.Param("n")
	const unroll = 2
	var sums [3][unroll]Vec
	for i := range sums {
		for j := range sums[i] {
			sums[i][j] = m.Zero()
		}
	}
	Stream(m, n, unroll, []GP{a, b}, func(s *Chunk) {
		for i := range s.Count {
			x, y := s.Load(a, i), s.Load(b, i)
			m.MulAdd(sums[0][i], x, y)
			m.MulAdd(sums[1][i], x, x)
			m.MulAdd(sums[2][i], y, y)
		}
	})
	out := m.Param("sums")
	for i := range sums {
		m.StoreFirst(At{Base: out, Disp: 4 * i}, m.SumLanes(m.Add(sums[i][0], sums[i][1])))
	}
	m.End()
}

func sum(m Machine) {
	m.Func("sum", "func(x *float32, n int) float32", "sum of x[i]")
	x, n := m.Param("x"), m.Param("n")
	acc := newAccumulator(m.Zero)
	Stream(m, n, accumulators, []GP{x}, func(s *Chunk) {
		for i := range s.Count {
			m.AddTo(acc[i], s.Load(x, i))
		}
	})
	m.End(acc.sum(m))
}

func squaredDeviation(m Machine) {
	m.Func("squaredDeviation", "func(x *float32, n int, mean float32) float32", "sum of (x[i]-mean)^2")
	x, n, mean := m.Param("x"), m.Param("n"), m.ParamSplat("mean")
	acc := newAccumulator(m.Zero)
	Stream(m, n, accumulators, []GP{x}, func(s *Chunk) {
		for i := range s.Count {
			d := m.Sub(s.LoadFill(x, i, mean), mean)
			m.MulAdd(acc[i], d, d)
		}
	})
	m.End(acc.sum(m))
}

// maximum begins with what it has to compare, where that fills its registers: half of a short
// vector's time is what stands around the comparisons.
func maximum(m Machine) {
	m.Func("maximum", "func(x *float32, n int) float32", "largest x[i], or NaN where one is NaN")
	x, n := m.Param("x"), m.Param("n")
	minusInf := Const(0xff800000)
	low := m.Splat(minusInf)
	var acc accumulator
	seen := []Mask{m.Record(), m.Record()}
	step := accumulators * m.Lanes()
	m.First(n, step, func() {
		for i := range acc {
			acc[i] = m.Load(At{Base: x, Disp: i * Bytes(m)}, nil)
		}
		for i := range seen {
			m.FirstNaN(seen[i], acc[2*i], acc[2*i+1])
		}
		m.AddImm(x, accumulators*Bytes(m))
	}, func() {
		for i := range acc {
			if m.Tier() == "NEON" {
				acc[i] = m.Copy(minusInf)
			} else {
				m.Set(acc[i], low)
			}
		}
		for _, s := range seen {
			m.NoNaN(s)
		}
	})
	Stream(m, n, accumulators, []GP{x}, func(s *Chunk) {
		var v [accumulators]Vec
		for i := range s.Count {
			v[i] = s.LoadFill(x, i, low)
			// MAXPS(x, acc) is acc where either is NaN.
			m.Set(acc[i], m.Max(v[i], acc[i]))
		}
		for i := 0; i < s.Count; i += 2 {
			m.SeeNaN(seen[i/2], v[i], v[min(i+1, s.Count-1)])
		}
	})
	m.End(m.MaxLanes(m.Max(m.Max(acc[3], acc[2]), m.Max(acc[1], acc[0])), seen...))
}

// expSum is the middle of softmax: exponentials relative to the maximum, and their sum.
func expSum(m Machine) {
	m.Func("expSum", "func(dst *float32, x *float32, n int, max float32) float32",
		"dst[i] = exp(x[i]-max) for x[i] <= max; the sum of dst[i]")
	dst, x, n, max := m.Param("dst"), m.Param("x"), m.Param("n"), m.ParamSplat("max")
	acc := newAccumulator(m.Zero)
	low := m.Splat(0xff800000)
	Stream(m, n, accumulators, []GP{dst, x}, func(s *Chunk) {
		for i := range s.Count {
			e := expOf(m, m.Sub(s.LoadFill(x, i, low), max), false)
			s.Store(dst, i, e)
			m.AddTo(acc[i], e)
		}
	})
	m.End(acc.sum(m))
}

// layerNorm and rmsNorm are the last passes over a row, its statistics known.

func layerNorm(m Machine) {
	m.Func("layerNorm", "func(dst *float32, x *float32, weight *float32, bias *float32, n int, mean float32, scale float32)",
		"dst[i] = (x[i]-mean)*scale*weight[i] + bias[i]")
	dst, x, w, b, n := m.Param("dst"), m.Param("x"), m.Param("weight"), m.Param("bias"), m.Param("n")
	mean, scale := m.ParamSplat("mean"), m.ParamSplat("scale")
	Stream(m, n, 4, []GP{dst, x, w, b}, func(s *Chunk) {
		for i := range s.Count {
			t := m.Mul(m.Sub(s.Load(x, i), mean), scale)
			s.Store(dst, i, m.Horner(t, s.Load(w, i), s.Load(b, i)))
		}
	})
	m.End()
}

func rmsNorm(m Machine) {
	m.Func("rmsNorm", "func(dst *float32, x *float32, weight *float32, n int, scale float32)",
		"dst[i] = x[i]*scale*weight[i]")
	dst, x, w, n, scale := m.Param("dst"), m.Param("x"), m.Param("weight"), m.Param("n"), m.ParamSplat("scale")
	Stream(m, n, 4, []GP{dst, x, w}, func(s *Chunk) {
		for i := range s.Count {
			s.Store(dst, i, m.Mul(m.Mul(s.Load(x, i), scale), s.Load(w, i)))
		}
	})
	m.End()
}
