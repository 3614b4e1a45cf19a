package simd

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// What crosses lanes.

// Reductions: the upper half onto the lower until one lane is left.

func (m *amd64) halves(v Vec, combine func(a, b reg.VecVirtual) reg.VecVirtual) Vec {
	w := vecOf(v)
	if m.wide() {
		high := m.YMM()
		m.VEXTRACTF64X4(operand.Imm(1), w, high)
		w = combine(w.AsY().(reg.VecVirtual), high)
	}
	high := m.XMM()
	m.VEXTRACTF128(operand.Imm(1), w.AsY(), high)
	w = combine(w.AsX().(reg.VecVirtual), high)
	for _, shuffle := range []uint64{0x4e, 0xb1} {
		other := m.XMM()
		m.VPERMILPS(operand.Imm(shuffle), w, other)
		w = combine(w, other)
	}
	return Vec{w}
}

func (m *amd64) like(v reg.VecVirtual) reg.VecVirtual {
	switch v.Size() {
	case 32:
		return m.YMM()
	case 16:
		return m.XMM()
	}
	return m.ZMM()
}

func (m *amd64) SumLanes(v Vec) Vec {
	return m.halves(v, func(a, b reg.VecVirtual) reg.VecVirtual {
		d := m.like(b)
		m.VADDPS(b, a, d)
		return d
	})
}

// The record of NaNs is the lanes without one on AVX-512, and those with one on AVX2.

func (m *amd64) Record() Mask {
	if m.wide() {
		return Mask{m.K()}
	}
	return Mask{m.vec()}
}

func (m *amd64) NoNaN(seen Mask) {
	if m.wide() {
		k := seen.h.(reg.Register)
		m.KXNORW(k, k, k)
		return
	}
	v := seen.h.(reg.VecVirtual)
	m.VXORPS(v, v, v)
}

func (m *amd64) FirstNaN(seen Mask, a, b Vec) {
	if m.wide() {
		m.VCMPPS(operand.Imm(0x07), vecOf(b), vecOf(a), seen.h.(reg.Register)) // both ordered
		return
	}
	m.VCMPPS(operand.Imm(0x03), vecOf(b), vecOf(a), seen.h.(reg.VecVirtual))
}

func (m *amd64) SeeNaN(seen Mask, a, b Vec) {
	if m.wide() {
		k := seen.h.(reg.Register)
		m.VCMPPS(operand.Imm(0x07), vecOf(b), vecOf(a), k, k) // both ordered
		return
	}
	d := m.vec()
	m.VCMPPS(operand.Imm(0x03), vecOf(b), vecOf(a), d)
	m.VORPS(d, seen.h.(reg.VecVirtual), seen.h.(reg.VecVirtual))
}

func (m *amd64) MaxLanes(v Vec, seen ...Mask) Vec {
	v = m.halves(v, func(a, b reg.VecVirtual) reg.VecVirtual {
		d := m.like(b)
		m.VMAXPS(b, a, d)
		return d
	})
	all := seen[0].h.(reg.Register)
	for _, s := range seen[1:] {
		if m.wide() {
			m.KANDW(s.h.(reg.Register), all, all)
		} else {
			m.VORPS(s.h.(reg.VecVirtual), all.(reg.VecVirtual), all.(reg.VecVirtual))
		}
	}
	done := m.newLabel("numbers")
	if m.wide() {
		m.KORTESTW(all, all)
		m.JCS(operand.LabelRef(done)) // all ones
	} else {
		bits := m.GP32()
		m.VMOVMSKPS(all, bits)
		m.TESTL(bits, bits)
		m.JEQ(operand.LabelRef(done))
	}
	m.VMOVSS(m.constant(0x7fc00000), vecOf(v).AsX())
	m.Label(done)
	return v
}

// across combines lanes half a vector apart, then a quarter, and so on.
func (m *amd64) across(v Vec, combine func(a Vec, b Src) Vec) Vec {
	swap := func(shuffle func(d reg.VecVirtual)) {
		d := m.vec()
		shuffle(d)
		v = combine(v, Vec{d})
	}
	if m.wide() {
		swap(func(d reg.VecVirtual) { m.VSHUFF32X4(operand.Imm(0x4e), vecOf(v), vecOf(v), d) })
		swap(func(d reg.VecVirtual) { m.VSHUFF32X4(operand.Imm(0xb1), vecOf(v), vecOf(v), d) })
	} else {
		swap(func(d reg.VecVirtual) { m.VPERM2F128(operand.Imm(0x01), vecOf(v), vecOf(v), d) })
	}
	for _, shuffle := range []uint64{0x4e, 0xb1} {
		swap(func(d reg.VecVirtual) { m.VPERMILPS(operand.Imm(shuffle), vecOf(v), d) })
	}
	return v
}

func (m *amd64) SumAcross(v Vec) Vec { return m.across(v, m.Add) }
func (m *amd64) MaxAcross(v Vec) Vec { return m.across(v, m.Max) }

// Transpose interleaves pairs of rows, then pairs of those, so that each quarter
// (of 128 bits) of a vector holds one column of four rows; then it gathers
// quarters.
func (m *amd64) Transpose(rows []Vec) []Vec {
	pair := func(f func(...operand.Op), a, b Vec) Vec {
		d := m.vec()
		f(vecOf(b), vecOf(a), d)
		return Vec{d}
	}
	halves := func(imm uint64, a, b Vec) Vec {
		d := m.vec()
		m.VPERM2F128(operand.Imm(imm), vecOf(b), vecOf(a), d)
		return Vec{d}
	}
	four := make([][]Vec, 0, 4) // of rows 4g ... 4g+3, columns c, 4+c, ...
	for g := 0; g < len(rows); g += 4 {
		r := rows[g : g+4]
		a, b := pair(m.VUNPCKLPS, r[0], r[1]), pair(m.VUNPCKLPS, r[2], r[3])
		c, d := pair(m.VUNPCKHPS, r[0], r[1]), pair(m.VUNPCKHPS, r[2], r[3])
		four = append(four, []Vec{pair(m.VUNPCKLPD, a, b), pair(m.VUNPCKHPD, a, b), pair(m.VUNPCKLPD, c, d), pair(m.VUNPCKHPD, c, d)})
	}
	columns := make([]Vec, len(rows))
	for c := range 4 {
		if !m.wide() {
			columns[c] = halves(0x20, four[0][c], four[1][c])
			columns[4+c] = halves(0x31, four[0][c], four[1][c])
			continue
		}
		for i, v := range m.TransposeQuarters([]Vec{four[0][c], four[1][c], four[2][c], four[3][c]}) {
			columns[4*i+c] = v
		}
	}
	return columns
}

func (m *amd64) TransposeQuarters(rows []Vec) []Vec {
	quarters := func(imm uint64, a, b Vec) Vec {
		d := m.ZMM()
		m.VSHUFF32X4(operand.Imm(imm), vecOf(b), vecOf(a), d)
		return Vec{d}
	}
	out := make([]Vec, 4)
	for i, imm := range []uint64{0x88, 0xdd} { // even and odd quarters
		x, y := quarters(imm, rows[0], rows[1]), quarters(imm, rows[2], rows[3])
		out[i], out[i+2] = quarters(0x88, x, y), quarters(0xdd, x, y)
	}
	return out
}

func (m *amd64) InterleaveBytes(a, b Vec, high bool) Vec {
	d := m.vec()
	if high {
		m.VPUNPCKHBW(vecOf(b), vecOf(a), d)
	} else {
		m.VPUNPCKLBW(vecOf(b), vecOf(a), d)
	}
	return Vec{d}
}

func (m *amd64) InterleavePairs(a, b Vec, high bool) Vec {
	d := m.vec()
	if high {
		m.VPUNPCKHWD(vecOf(b), vecOf(a), d)
	} else {
		m.VPUNPCKLWD(vecOf(b), vecOf(a), d)
	}
	return Vec{d}
}

// SumRows adds neighbours within quarters of 128 bits until each holds the sums
// of four rows over that quarter, then quarters.
func (m *amd64) SumRows(rows []Vec) Vec { return m.reduceRows(rows, m.Add) }

func (m *amd64) MaxRows(rows []Vec) Vec { return m.reduceRows(rows, m.Max) }

func (m *amd64) reduceRows(rows []Vec, combine func(Vec, Src) Vec) Vec {
	op := func(f func(...operand.Op), imm []operand.Op, a, b Vec) Vec {
		d := m.vec()
		f(append(imm, vecOf(b), vecOf(a), d)...)
		return Vec{d}
	}
	pair := func(a, b Vec) Vec {
		return combine(op(m.VUNPCKLPS, nil, a, b), op(m.VUNPCKHPS, nil, a, b))
	}
	var quads []Vec
	for i := 0; i < len(rows); i += 4 {
		x, y := pair(rows[i], rows[i+1]), pair(rows[i+2], rows[i+3])
		quads = append(quads, combine(op(m.VUNPCKLPD, nil, x, y), op(m.VUNPCKHPD, nil, x, y)))
	}
	for len(quads) < m.lanes/4 { // what is not asked for repeats the others
		quads = append(quads, quads...)
	}
	if !m.wide() {
		f := func(o ...operand.Op) { m.VPERM2F128(o[0], o[1], o[2], o[3]) }
		imm := func(i uint64) []operand.Op { return []operand.Op{operand.Imm(i)} }
		return combine(op(f, imm(0x20), quads[0], quads[1]), op(f, imm(0x31), quads[0], quads[1]))
	}
	fold := func(a, b Vec) Vec {
		imm := func(i uint64) []operand.Op { return []operand.Op{operand.Imm(i)} }
		return combine(op(m.VSHUFF32X4, imm(0x88), a, b), op(m.VSHUFF32X4, imm(0xdd), a, b))
	}
	return fold(fold(quads[0], quads[1]), fold(quads[2], quads[3]))
}

func (m *amd64) MulAddQuad(acc Vec, a, b At) {
	x := m.XMM()
	m.VMOVUPS(m.mem(a), x)
	m.VFMADD231PS(m.mem(b), x, vecOf(acc).AsX())
}

func (m *amd64) StoreQuad(a At, v Vec, quad int) {
	x := vecOf(v)
	if quad == 0 {
		m.VMOVUPS(x.AsX(), m.mem(a))
		return
	}
	if !m.wide() {
		m.VEXTRACTF128(operand.Imm(uint64(quad)), x, m.mem(a))
		return
	}
	m.VEXTRACTF32X4(operand.Imm(uint64(quad)), x, m.mem(a))
}
