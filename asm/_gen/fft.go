package main

import (
	"fmt"
	"math"

	. "github.com/subquad/subquad/asm/_gen/simd"
)

// Butterflies of the Fourier transform of Lanes sequences at once. A row holds
// one complex element of each: Lanes real parts, then Lanes imaginary parts.
// Strides are in bytes. The forward stages are decimation in frequency and take
// their input in natural order; the inverse stages are decimation in time and
// take what the forward ones left, so nothing is ever reordered.
//
// Package hyena's transform.go tells the whole transform; its ring z^n = i is
// why the first forward and the last inverse stage see real data.

type complexVec struct{ re, im Vec }

type fft struct{ Machine }

func (f fft) rowBytes() int { return 2 * Bytes(f) }

func (f fft) load(a At) complexVec {
	return complexVec{f.Load(a, nil), f.Load(a.Plus(Bytes(f)), nil)}
}

func (f fft) store(a At, v complexVec) {
	f.Store(a, nil, v.re)
	f.Store(a.Plus(Bytes(f)), nil, v.im)
}

func (f fft) add(a, b complexVec) complexVec {
	return complexVec{f.Add(a.re, b.re), f.Add(a.im, b.im)}
}

func (f fft) sub(a, b complexVec) complexVec {
	return complexVec{f.Sub(a.re, b.re), f.Sub(a.im, b.im)}
}

// addI returns a + i b, subI a - i b.
func (f fft) addI(a, b complexVec) complexVec {
	return complexVec{f.Sub(a.re, b.im), f.Add(a.im, b.re)}
}

func (f fft) subI(a, b complexVec) complexVec {
	return complexVec{f.Add(a.re, b.im), f.Sub(a.im, b.re)}
}

func (f fft) scale(a complexVec, s Const) complexVec {
	return complexVec{f.Mul(a.re, s), f.Mul(a.im, s)}
}

// combine returns base + s a + t b.
func (f fft) combine(base At, a complexVec, s Const, b complexVec, t Const) complexVec {
	v := f.load(base)
	f.MulAdd(v.re, a.re, s)
	f.MulAdd(v.re, b.re, t)
	f.MulAdd(v.im, a.im, s)
	f.MulAdd(v.im, b.im, t)
	return v
}

// twiddle returns v times the complex number at w, or times its conjugate.
func (f fft) twiddle(v complexVec, w At, conjugate bool) complexVec {
	wr := f.SplatAt(w)
	p := complexVec{f.Mul(v.re, wr), f.Mul(v.im, wr)}
	wi := f.SplatAt(w.Plus(4))
	if conjugate {
		f.MulAdd(p.re, v.im, wi)
		f.MulSub(p.im, v.re, wi)
	} else {
		f.MulSub(p.re, v.im, wi)
		f.MulAdd(p.im, v.re, wi)
	}
	return p
}

// times returns a times a whole row.
func (f fft) times(a complexVec, row At) complexVec {
	return f.product(a, f.load(row))
}

func (f fft) product(a, b complexVec) complexVec {
	p := complexVec{f.Mul(a.re, b.re), f.Mul(a.re, b.im)}
	f.MulSub(p.re, a.im, b.im)
	f.MulAdd(p.im, a.im, b.re)
	return p
}

// butterfly computes the radix outputs sum over p of x[p] e^(-+2 pi i p k / radix)
// from the inputs in(p) and hands each on as soon as it is known. base is where
// in(0) stands; it must still be there when output 1 is handed on.
func (f fft) butterfly(radix int, inverse bool, base At, in func(p int) complexVec, out func(k int, v complexVec)) {
	plus, minus := f.addI, f.subI // a +- i b in the forward direction
	if inverse {
		plus, minus = minus, plus
	}
	switch radix {
	case 2:
		a, b := in(0), in(1)
		out(1, f.sub(a, b))
		out(0, f.add(a, b))
	case 3:
		b, c := in(1), in(2)
		t, s := f.add(b, c), f.scale(f.sub(b, c), float(float32(math.Sqrt(3)/2)))
		a := in(0)
		mid := complexVec{f.Copy(a.re), f.Copy(a.im)}
		f.MulSub(mid.re, t.re, float(0.5))
		f.MulSub(mid.im, t.im, float(0.5))
		out(1, minus(mid, s))
		out(2, plus(mid, s))
		out(0, f.add(a, t))
	case 4:
		a, c := in(0), in(2)
		ac, amc := f.add(a, c), f.sub(a, c)
		b, d := in(1), in(3)
		bd, bmd := f.add(b, d), f.sub(b, d)
		out(1, minus(amc, bmd))
		out(3, plus(amc, bmd))
		out(2, f.sub(ac, bd))
		out(0, f.add(ac, bd))
	case 5:
		c1, s1 := float(float32(math.Cos(2*math.Pi/5))), float(float32(math.Sin(2*math.Pi/5)))
		c2, s2 := float(float32(math.Cos(4*math.Pi/5))), float(float32(math.Sin(4*math.Pi/5)))
		b, e := in(1), in(4)
		be, bme := f.add(b, e), f.sub(b, e)
		c, d := in(2), in(3)
		cd, cmd := f.add(c, d), f.sub(c, d)
		m, n := f.combine(base, be, c1, cd, c2), f.scale(bme, s1)
		f.MulAdd(n.re, cmd.re, s2)
		f.MulAdd(n.im, cmd.im, s2)
		out(1, minus(m, n))
		out(4, plus(m, n))
		m, n = f.combine(base, be, c2, cd, c1), f.scale(bme, s2)
		f.MulSub(n.re, cmd.re, s1)
		f.MulSub(n.im, cmd.im, s1)
		out(2, minus(m, n))
		out(3, plus(m, n))
		out(0, f.add(f.load(base), f.add(be, cd)))
	}
}

// stage is one stage in place: in each of blocks blocks, count butterflies of
// rows q apart. Twiddles are radix-1 complex numbers for each butterfly.
func stage(radix int, inverse bool) kernel {
	return func(m Machine) {
		f := fft{m}
		name := "fftForward"
		if inverse {
			name = "fftInverse"
		}
		f.Func(fmt.Sprint(name, radix), "func(x *float32, q int, count int, blocks int, block int, tw *float32)",
			fmt.Sprintf("radix %d in place: count butterflies over rows q bytes apart, in blocks block bytes apart", radix))
		x, blocks := f.Param("x"), f.Param("blocks")
		f.Loop(blocks, 1, func() {
			rows := f.Rows(f.CopyGP(x), f.Param("q"), radix)
			tw := f.Param("tw")
			f.Loop(f.Param("count"), 1, func() {
				w := func(k int) At { return At{Base: tw, Disp: 8 * (k - 1)} }
				if inverse {
					f.inverseButterfly(radix, rows, w)
				} else {
					f.forwardButterfly(radix, rows, w)
				}
				rows.Advance(f.rowBytes())
				f.AddImm(tw, 8*(radix-1))
			})
			f.AddGP(x, f.Param("block"))
		})
		f.End()
	}
}

func (f fft) forwardButterfly(radix int, rows Rows, w func(k int) At) {
	// With 16 registers there is no room for the twiddles of outputs 1 and 4 of
	// a radix-5 butterfly: they wait in memory.
	waits := func(k int) bool { return radix == 5 && f.Lanes() == 8 && (k == 1 || k == 4) }
	f.butterfly(radix, false, rows.At(0), func(p int) complexVec { return f.load(rows.At(p)) }, func(k int, v complexVec) {
		if k > 0 && !waits(k) {
			v = f.twiddle(v, w(k), false)
		}
		f.store(rows.At(k), v)
	})
	for k := range radix {
		if waits(k) {
			f.store(rows.At(k), f.twiddle(f.load(rows.At(k)), w(k), false))
		}
	}
}

func (f fft) inverseButterfly(radix int, rows Rows, w func(k int) At) {
	f.butterfly(radix, true, rows.At(0), func(p int) complexVec {
		v := f.load(rows.At(p))
		if p > 0 {
			v = f.twiddle(v, w(p), true)
		}
		return v
	}, func(k int, v complexVec) { f.store(rows.At(k), v) })
}

// The roots of i that the outer stages bring in: e^(i pi p / 8).
var (
	cos8 = float(float32(math.Cos(math.Pi / 8)))
	sin8 = float(float32(math.Sin(math.Pi / 8)))
	half = float(float32(math.Sqrt(0.5)))
)

// first is the first forward stage, radix 4: rows of u, uBlock apart, are real,
// and the last 4-valid of them zero.
func first(valid int) kernel {
	return func(m Machine) {
		f := fft{m}
		f.Func(fmt.Sprint("fftFirst", valid), "func(x *float32, q int, u *float32, uRow int, uBlock int, count int, tw *float32)",
			fmt.Sprintf("the first stage from real rows of which %d of 4 are not zero", valid))
		rows := f.Rows(f.Param("x"), f.Param("q"), 4)
		in := f.Rows(f.Param("u"), f.Param("uBlock"), valid)
		tw, uRow := f.Param("tw"), f.Param("uRow")
		f.Loop(f.Param("count"), 1, func() {
			x0 := f.Load(in.At(0), nil)
			x1 := f.Load(in.At(1), nil)
			// a, b = x0 +- e^(i pi/4) x2; c, d = e^(i pi/8) x1 +- e^(3 i pi/8) x3.
			a, b := complexVec{x0, f.Zero()}, complexVec{x0, f.Zero()}
			if valid > 2 {
				x2 := f.Load(in.At(2), nil)
				im := f.Mul(x2, half)
				a = complexVec{f.Add(x0, im), im}
				b = complexVec{f.Sub(x0, im), f.Mul(x2, half|signBit)}
			}
			c := complexVec{f.Mul(x1, cos8), f.Mul(x1, sin8)}
			d := c
			if valid > 3 {
				x3 := f.Load(in.At(3), nil)
				d = complexVec{f.Copy(c.re), f.Copy(c.im)}
				f.MulAdd(c.re, x3, sin8)
				f.MulSub(d.re, x3, sin8)
				f.MulAdd(c.im, x3, cos8)
				f.MulSub(d.im, x3, cos8)
			}
			for _, y := range []struct {
				k int
				v func() complexVec
			}{
				{0, func() complexVec { return f.add(a, c) }},
				{2, func() complexVec { return f.sub(a, c) }},
				{1, func() complexVec { return f.subI(b, d) }},
				{3, func() complexVec { return f.addI(b, d) }},
			} {
				f.store(rows.At(y.k), f.twiddle(y.v(), At{Base: tw, Disp: 8 * y.k}, false))
			}
			in.AdvanceGP(uRow)
			rows.Advance(f.rowBytes())
			f.AddImm(tw, 32)
		})
		f.End()
	}
}

// last is the last inverse stage, radix 4: the real parts of the first valid of
// four rows go to y.
func last(valid int) kernel {
	return func(m Machine) {
		f := fft{m}
		f.Func(fmt.Sprint("fftLast", valid), "func(x *float32, q int, y *float32, yRow int, yBlock int, count int, tw *float32)",
			fmt.Sprintf("the last stage, to %d of 4 real rows", valid))
		rows := f.Rows(f.Param("x"), f.Param("q"), 4)
		out := f.Rows(f.Param("y"), f.Param("yBlock"), valid)
		tw, yRow := f.Param("tw"), f.Param("yRow")
		f.Loop(f.Param("count"), 1, func() {
			in := func(k int) complexVec { return f.twiddle(f.load(rows.At(k)), At{Base: tw, Disp: 8 * k}, true) }
			z0, z2 := in(0), in(2)
			a, b := f.add(z0, z2), f.sub(z0, z2)
			z1, z3 := in(1), in(3)
			c, d := f.add(z1, z3), f.sub(z1, z3)
			// The real part of e^(-i pi p/8) s.
			put := func(p int, s complexVec, re, im Const) {
				v := f.Mul(s.re, re)
				f.MulAdd(v, s.im, im)
				f.Store(out.At(p), nil, v)
			}
			f.Store(out.At(0), nil, f.Add(a.re, c.re))
			put(1, f.addI(b, d), cos8, sin8)
			if valid > 2 {
				put(2, f.sub(a, c), half, half)
			}
			if valid > 3 {
				put(3, f.subI(b, d), sin8, cos8)
			}
			out.AdvanceGP(yRow)
			rows.Advance(f.rowBytes())
			f.AddImm(tw, 32)
		})
		f.End()
	}
}

// center is the last forward stage (radix 4), the product with the spectrum and
// the first inverse stage, four rows at a time.
func center(m Machine) {
	f := fft{m}
	f.Func("fftCenter", "func(x *float32, spectrum *float32, blocks int)",
		"forward radix 4, times spectrum, inverse radix 4, on blocks of four rows")
	x, s := f.Param("x"), f.Param("spectrum")
	row := func(p GP, k int) At { return At{Base: p, Disp: k * f.rowBytes()} }
	f.Loop(f.Param("blocks"), 1, func() {
		var z [4]complexVec
		f.butterfly(4, false, row(x, 0), func(p int) complexVec { return f.load(row(x, p)) }, func(k int, v complexVec) {
			if f.Lanes() == 8 { // too few registers to keep all four
				f.store(row(x, k), f.times(v, row(s, k)))
			} else {
				z[k] = f.times(v, row(s, k))
			}
		})
		f.butterfly(4, true, row(x, 0), func(p int) complexVec {
			if f.Lanes() == 8 {
				return f.load(row(x, p))
			}
			return z[p]
		}, func(k int, v complexVec) { f.store(row(x, k), v) })
		f.AddImm(x, 4*f.rowBytes())
		f.AddImm(s, 4*f.rowBytes())
	})
	f.End()
}

// ring is the product of rows whose lanes are the Lanes phases of one sequence:
// polynomials modulo z^Lanes - zeta. A row of the spectrum holds, real parts
// first, zeta times the kernel's phases and then the phases themselves, so that
// the shifted kernel that a phase meets is one unaligned load.
func ring(m Machine) {
	f := fft{m}
	f.Func("fftRing", "func(x *float32, spectrum *float32, count int)",
		"rows of x times rows of spectrum, lanes being phases of one sequence")
	x, s := f.Param("x"), f.Param("spectrum")
	vb := Bytes(f)
	f.Loop(f.Param("count"), 1, func() {
		var sums [2]complexVec // by real and imaginary part of x, which need not wait for each other
		for i := range sums {
			sums[i] = complexVec{f.Zero(), f.Zero()}
		}
		for phase := range f.Lanes() {
			shift := At{Base: s, Disp: vb - 4*phase}
			re, im := f.Load(shift, nil), f.Load(shift.Plus(2*vb), nil)
			xr := f.SplatAt(At{Base: x, Disp: 4 * phase})
			f.MulAdd(sums[0].re, xr, re)
			f.MulAdd(sums[0].im, xr, im)
			xi := f.SplatAt(At{Base: x, Disp: vb + 4*phase})
			f.MulSub(sums[1].re, xi, im)
			f.MulAdd(sums[1].im, xi, re)
		}
		f.store(At{Base: x}, f.add(sums[0], sums[1]))
		f.AddImm(x, 2*vb)
		f.AddImm(s, 4*vb)
	})
	f.End()
}

func fftKernels() (list []kernel) {
	for radix := 2; radix <= 5; radix++ {
		list = append(list, stage(radix, false), stage(radix, true))
	}
	for valid := 2; valid <= 4; valid++ {
		list = append(list, first(valid), last(valid))
	}
	return append(list, center, ring)
}
