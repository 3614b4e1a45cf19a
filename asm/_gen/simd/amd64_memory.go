package simd

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Loads and stores.

func (m *amd64) Load(a At, t *Tail) Vec {
	v := m.vec()
	switch {
	case t == nil:
		m.VMOVUPS(m.mem(a), v)
	case m.wide():
		m.VMOVUPS_Z(m.mem(a), t.mask.h.(reg.Register), v)
	default:
		m.VMASKMOVPS(m.mem(a), t.mask.h.(reg.Register), v)
	}
	return Vec{v}
}

func (m *amd64) LoadFill(a At, t *Tail, fill Vec) Vec {
	switch {
	case t == nil:
		return m.Load(a, nil)
	case m.wide():
		v := m.Copy(fill)
		m.VMOVUPS(m.mem(a), t.mask.h.(reg.Register), vecOf(v))
		return v
	default:
		return m.Select(t.mask, m.Load(a, t), fill)
	}
}

func (m *amd64) Store(a At, t *Tail, v Vec) {
	switch {
	case t == nil:
		m.VMOVUPS(vecOf(v), m.mem(a))
	case m.wide():
		m.VMOVUPS(vecOf(v), t.mask.h.(reg.Register), m.mem(a))
	default:
		m.VMASKMOVPS(vecOf(v), t.mask.h.(reg.Register), m.mem(a))
	}
}

func (m *amd64) StoreFirst(a At, v Vec) { m.VMOVSS(vecOf(v).AsX(), m.mem(a)) }

func (m *amd64) StoreBytes(a At, v Vec) { m.VPMOVDB(vecOf(v), m.mem(a)) }

func (m *amd64) SplatAt(a At) Vec {
	v := m.vec()
	m.VBROADCASTSS(m.mem(a), v)
	return Vec{v}
}

func (m *amd64) SplatPast(p, step GP) Vec {
	v := m.SplatAt(At{Base: p})
	m.AddGP(p, step)
	return v
}

func (m *amd64) Splat(c Const) Vec {
	if v, ok := m.hoist(c); ok {
		return Vec{v}
	}
	v := m.vec()
	m.VBROADCASTSS(m.constant(c), v)
	return Vec{v}
}

func (m *amd64) LoadBFloat16(a At) Vec {
	v := m.vec()
	m.VPMOVZXWD(m.mem(a), v)
	m.VPSLLD(operand.Imm(16), v, v)
	return Vec{v}
}

func (m *amd64) LoadInt8(a At) Vec {
	v := m.vec()
	m.VPMOVSXBD(m.mem(a), v)
	m.VCVTDQ2PS(v, v)
	return Vec{v}
}

func (m *amd64) LoadFloat16(a At) Vec {
	v := m.vec()
	m.VCVTPH2PS(m.mem(a), v)
	return Vec{v}
}

func (m *amd64) Prefetch(a At) { m.PREFETCHT1(m.mem(a)) }
