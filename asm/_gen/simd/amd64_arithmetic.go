package simd

import (
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
	"github.com/mmcloughlin/avo/x86"
)

// Arithmetic.

func (m *amd64) Copy(s Src) Vec {
	v := m.vec()
	if c, ok := s.(Const); ok {
		if _, ok := m.hoist(c); !ok {
			m.VBROADCASTSS(m.constant(c), v)
			return Vec{v}
		}
	}
	m.op(x86.VMOVUPS, nil, s, v)
	return Vec{v}
}

func (m *amd64) Zero() Vec {
	v := m.vec()
	if m.wide() {
		m.VPXORD(v, v, v)
	} else {
		m.VXORPS(v, v, v)
	}
	return Vec{v}
}

func fixed(f func(a, b, c operand.Op) (*ir.Instruction, error)) encoder {
	return func(o ...operand.Op) (*ir.Instruction, error) { return f(o[0], o[1], o[2]) }
}

func (m *amd64) binary(plain, broadcast encoder, a Vec, b Src) Vec {
	v := m.vec()
	m.op(plain, broadcast, b, vecOf(a), v)
	return Vec{v}
}

func (m *amd64) Add(a Vec, b Src) Vec { return m.binary(x86.VADDPS, x86.VADDPS_BCST, a, b) }
func (m *amd64) Sub(a Vec, b Src) Vec { return m.binary(x86.VSUBPS, x86.VSUBPS_BCST, a, b) }
func (m *amd64) Mul(a Vec, b Src) Vec { return m.binary(x86.VMULPS, x86.VMULPS_BCST, a, b) }
func (m *amd64) Div(a Vec, b Src) Vec { return m.binary(x86.VDIVPS, x86.VDIVPS_BCST, a, b) }
func (m *amd64) Min(a Vec, b Src) Vec { return m.binary(x86.VMINPS, x86.VMINPS_BCST, a, b) }
func (m *amd64) Max(a Vec, b Src) Vec { return m.binary(x86.VMAXPS, x86.VMAXPS_BCST, a, b) }
func (m *amd64) And(a Vec, b Src) Vec {
	return m.bitwise(fixed(x86.VPAND), x86.VPANDD, x86.VPANDD_BCST, a, b)
}
func (m *amd64) Or(a Vec, b Src) Vec {
	return m.bitwise(fixed(x86.VPOR), x86.VPORD, x86.VPORD_BCST, a, b)
}
func (m *amd64) Xor(a Vec, b Src) Vec {
	return m.bitwise(fixed(x86.VPXOR), x86.VPXORD, x86.VPXORD_BCST, a, b)
}
func (m *amd64) AddInt(a Vec, b Src) Vec { return m.binary(x86.VPADDD, x86.VPADDD_BCST, a, b) }

func (m *amd64) bitwise(avx2, avx512, broadcast encoder, a Vec, b Src) Vec {
	if m.wide() {
		return m.binary(avx512, broadcast, a, b)
	}
	return m.binary(avx2, nil, a, b)
}

func (m *amd64) ShlInt(a Vec, n int) Vec {
	v := m.vec()
	m.VPSLLD(operand.Imm(uint64(n)), vecOf(a), v)
	return Vec{v}
}

func (m *amd64) ScaleExp2(p, n, z Vec) Vec {
	if !m.wide() {
		return m.AddInt(p, m.ShlInt(z, 23))
	}
	v := m.vec()
	m.VSCALEFPS(vecOf(n), vecOf(p), v)
	return Vec{v}
}

func (m *amd64) ScaleExp2Where(k Mask, p, n, z Vec) Vec {
	mask := k.h.(reg.Register)
	if !m.wide() {
		return m.And(m.ScaleExp2(p, n, z), Vec{mask.(reg.VecVirtual)})
	}
	v := m.vec()
	m.VSCALEFPS_Z(vecOf(n), vecOf(p), mask, v)
	return Vec{v}
}

func (m *amd64) Cmp(p Pred, a Vec, b Src) Mask {
	// Quiet predicates of VCMPPS; all but UNORD_Q and NLT_UQ are false for NaN.
	imm := operand.Imm(map[Pred]uint64{Less: 0x11, LessEqual: 0x12, Greater: 0x1e, Unordered: 0x03, NotLess: 0x15}[p])
	var dst reg.Register = m.vec()
	if m.wide() {
		dst = m.K()
	}
	o := m.operand(b)
	if _, ok := b.(Const); ok && m.wide() && operand.IsMem(o) {
		m.VCMPPS_BCST(imm, o, vecOf(a), dst)
	} else {
		m.VCMPPS(imm, o, vecOf(a), dst)
	}
	return Mask{dst}
}

func (m *amd64) Select(k Mask, t Src, f Vec) Vec {
	v := m.vec()
	mask := k.h.(reg.Register)
	if m.wide() {
		m.op(x86.VBLENDMPS, x86.VBLENDMPS_BCST, t, vecOf(f), mask, v)
		return Vec{v}
	}
	m.VBLENDVPS(mask, m.operand(t), vecOf(f), v)
	return Vec{v}
}

func (m *amd64) Set(dst, v Vec) { m.VMOVAPS(vecOf(v), vecOf(dst)) }

func (m *amd64) SetWhere(k Mask, dst, v Vec) {
	mask := k.h.(reg.Register)
	if m.wide() {
		m.VBLENDMPS(vecOf(v), vecOf(dst), mask, vecOf(dst))
		return
	}
	m.VBLENDVPS(mask, vecOf(v), vecOf(dst), vecOf(dst))
}

func (m *amd64) AddTo(acc Vec, b Src) {
	m.op(x86.VADDPS, x86.VADDPS_BCST, b, vecOf(acc), vecOf(acc))
}

func (m *amd64) MulAdd(acc, a Vec, b Src) {
	m.op(x86.VFMADD231PS, x86.VFMADD231PS_BCST, b, vecOf(a), vecOf(acc))
}

func (m *amd64) MulSub(acc, a Vec, b Src) {
	m.op(x86.VFNMADD231PS, x86.VFNMADD231PS_BCST, b, vecOf(a), vecOf(acc))
}

func (m *amd64) Horner(p, x Vec, c Src) Vec {
	m.op(x86.VFMADD213PS, x86.VFMADD213PS_BCST, c, vecOf(x), vecOf(p))
	return p
}

func (m *amd64) Sqrt(a Vec) Vec {
	v := m.vec()
	m.VSQRTPS(vecOf(a), v)
	return Vec{v}
}

func (m *amd64) FloatOfInt(a Vec) Vec {
	v := m.vec()
	m.VCVTDQ2PS(vecOf(a), v)
	return Vec{v}
}

func (m *amd64) SwapPairs(a Vec) Vec {
	v := m.vec()
	m.VPERMILPS(operand.Imm(0xb1), vecOf(a), v)
	return Vec{v}
}

func (m *amd64) Int8Factors(k Vec) Vec { return m.Xor(k, Const(0x80808080)) }

func (m *amd64) DotInt8(acc, k Vec, q Each, dot bool) {
	if dot {
		m.op(x86.VPDPBUSD, x86.VPDPBUSD_BCST, q, vecOf(k), vecOf(acc))
		return
	}
	// Sums of two products are at most 2*255*64 < 2^15: nothing saturates.
	m.dotByPairs(acc, m.SplatAt(At(q)), k)
}

func (m *amd64) DotUint8(acc, v, w Vec, dot bool) {
	if dot {
		m.VPDPBUSD(vecOf(v), vecOf(w), vecOf(acc))
		return
	}
	m.dotByPairs(acc, v, w) // sums of two products are at most 2*127*128 < 2^15
}

// dotByPairs adds sums of four products of bytes with sign and without, by way of sums of two.
func (m *amd64) dotByPairs(acc, signed, unsigned Vec) {
	v := m.vec()
	m.VPMADDUBSW(vecOf(signed), vecOf(unsigned), v)
	m.VPMADDWD(m.operand(Const(0x00010001)), v, v)
	m.VPADDD(v, vecOf(acc), vecOf(acc))
}

func (m *amd64) ShrInt(a Vec, n int) Vec {
	v := m.vec()
	m.VPSRLD(operand.Imm(uint64(n)), vecOf(a), v)
	return Vec{v}
}
