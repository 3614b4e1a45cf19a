package simd

import "github.com/mmcloughlin/avo/operand"

func (m *amd64) LoadFloat16(a At) Vec {
	v := m.vec()
	m.VCVTPH2PS(m.mem(a), v)
	return Vec{v}
}

func (m *amd64) Prefetch(a At) { m.PREFETCHT1(m.mem(a)) }

// SumRows adds neighbours within quarters of 128 bits until each holds the sums
// of four rows over that quarter, then quarters.
func (m *amd64) SumRows(rows []Vec) Vec {
	op := func(f func(...operand.Op), imm []operand.Op, a, b Vec) Vec {
		d := m.vec()
		f(append(imm, vecOf(b), vecOf(a), d)...)
		return Vec{d}
	}
	pair := func(a, b Vec) Vec {
		return m.Add(op(m.VUNPCKLPS, nil, a, b), op(m.VUNPCKHPS, nil, a, b))
	}
	var quads []Vec
	for i := 0; i < len(rows); i += 4 {
		x, y := pair(rows[i], rows[i+1]), pair(rows[i+2], rows[i+3])
		quads = append(quads, m.Add(op(m.VUNPCKLPD, nil, x, y), op(m.VUNPCKHPD, nil, x, y)))
	}
	for len(quads) < m.lanes/4 { // what is not asked for repeats the others
		quads = append(quads, quads...)
	}
	if !m.wide() {
		f := func(o ...operand.Op) { m.VPERM2F128(o[0], o[1], o[2], o[3]) }
		imm := func(i uint64) []operand.Op { return []operand.Op{operand.Imm(i)} }
		return m.Add(op(f, imm(0x20), quads[0], quads[1]), op(f, imm(0x31), quads[0], quads[1]))
	}
	fold := func(a, b Vec) Vec {
		imm := func(i uint64) []operand.Op { return []operand.Op{operand.Imm(i)} }
		return m.Add(op(m.VSHUFF32X4, imm(0x88), a, b), op(m.VSHUFF32X4, imm(0xdd), a, b))
	}
	return fold(fold(quads[0], quads[1]), fold(quads[2], quads[3]))
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

func (m *arm64) LoadFloat16(a At) Vec {
	half := m.Load(a, &Tail{n: 2})
	v, r := m.newVec()
	m.coded(0x0e217800, "FCVTL V%0.4S, V%1.4H", r, armVec(half))
	return v
}

// Prefetch does nothing: processors with NEON foresee these streams well enough
// as far as is known; it has not been measured.
func (m *arm64) Prefetch(At) {}

func (m *arm64) SumRows(rows []Vec) Vec {
	pair := func(a, b Vec) Vec {
		v, r := m.newVec()
		m.coded(0x6e20d400, "FADDP V%0.4S, V%1.4S, V%2.4S", r, armVec(a), armVec(b))
		return v
	}
	return pair(pair(rows[0], rows[1]), pair(rows[2], rows[3]))
}

func (m *arm64) StoreQuad(a At, v Vec, _ int) { m.Store(a, nil, v) }
