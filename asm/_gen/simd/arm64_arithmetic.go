package simd

import (
	"fmt"
)

// Arithmetic.

func (m *arm64) Copy(s Src) Vec {
	if a, ok := s.(At); ok {
		return m.Load(a, nil)
	}
	v, r := m.newVec()
	m.named("VMOV V%1.B16, V%0.B16", []armReg{r}, []armReg{m.source(s)})
	return v
}

func (m *arm64) Zero() Vec {
	v, r := m.newVec()
	m.named("VMOVI $0, V%0.B16", []armReg{r}, nil)
	return v
}

func (m *arm64) binary(word uint32, name string, a Vec, b Src) Vec {
	s := m.source(b)
	v, r := m.newVec()
	m.coded(word, name+" V%0.4S, V%1.4S, V%2.4S", r, armVec(a), s)
	return v
}

func (m *arm64) Add(a Vec, b Src) Vec { return m.binary(0x4e20d400, "FADD", a, b) }
func (m *arm64) Sub(a Vec, b Src) Vec { return m.binary(0x4ea0d400, "FSUB", a, b) }
func (m *arm64) Mul(a Vec, b Src) Vec { return m.binary(0x6e20dc00, "FMUL", a, b) }
func (m *arm64) Div(a Vec, b Src) Vec { return m.binary(0x6e20fc00, "FDIV", a, b) }
func (m *arm64) Min(a Vec, b Src) Vec { return m.binary(0x4ea0f400, "FMIN", a, b) }
func (m *arm64) Max(a Vec, b Src) Vec { return m.binary(0x4e20f400, "FMAX", a, b) }

func (m *arm64) integer(text string, a Vec, b Src) Vec {
	s := m.source(b)
	v, r := m.newVec()
	m.named(text, []armReg{r}, []armReg{armVec(a), s})
	return v
}

func (m *arm64) And(a Vec, b Src) Vec { return m.integer("VAND V%2.B16, V%1.B16, V%0.B16", a, b) }
func (m *arm64) Or(a Vec, b Src) Vec  { return m.integer("VORR V%2.B16, V%1.B16, V%0.B16", a, b) }
func (m *arm64) Xor(a Vec, b Src) Vec { return m.integer("VEOR V%2.B16, V%1.B16, V%0.B16", a, b) }
func (m *arm64) AddInt(a Vec, b Src) Vec {
	return m.integer("VADD V%2.S4, V%1.S4, V%0.S4", a, b)
}

func (m *arm64) ShlInt(a Vec, n int) Vec {
	v, r := m.newVec()
	m.named(fmt.Sprintf("VSHL $%d, V%%1.S4, V%%0.S4", n), []armReg{r}, []armReg{armVec(a)})
	return v
}

func (m *arm64) ScaleExp2(p, _, z Vec) Vec { return m.AddInt(p, m.ShlInt(z, 23)) }

func (m *arm64) ScaleExp2Where(k Mask, p, n, z Vec) Vec {
	return m.And(m.ScaleExp2(p, n, z), Vec{k.h})
}

func (m *arm64) Cmp(p Pred, a Vec, b Src) Mask {
	s := m.source(b)
	_, r := m.newVec()
	x := armVec(a)
	switch p {
	case Less:
		m.coded(0x6ea0e400, "FCMGT V%0.4S, V%1.4S, V%2.4S", r, s, x)
	case LessEqual:
		m.coded(0x6e20e400, "FCMGE V%0.4S, V%1.4S, V%2.4S", r, s, x)
	case Greater:
		m.coded(0x6ea0e400, "FCMGT V%0.4S, V%1.4S, V%2.4S", r, x, s)
	case NotLess:
		m.coded(0x6e20e400, "FCMGE V%0.4S, V%1.4S, V%2.4S", r, x, s)
	default:
		panic("NEON: no such comparison")
	}
	return Mask{r}
}

func (m *arm64) Select(k Mask, t Src, f Vec) Vec {
	s := m.source(t)
	v, r := m.newVec()
	m.named("VMOV V%1.B16, V%0.B16", []armReg{r}, []armReg{k.h.(armReg)})
	m.named("VBSL V%3.B16, V%2.B16, V%0.B16", []armReg{r}, []armReg{r, s, armVec(f)})
	return v
}

func (m *arm64) Set(dst, v Vec) {
	m.named("VMOV V%1.B16, V%0.B16", []armReg{armVec(dst)}, []armReg{armVec(v)})
}

func (m *arm64) SetWhere(k Mask, dst, v Vec) {
	r := armVec(dst)
	m.named("VBIT V%2.B16, V%3.B16, V%0.B16", []armReg{r}, []armReg{r, k.h.(armReg), armVec(v)})
}

func (m *arm64) AddTo(acc Vec, b Src) {
	r := armVec(acc)
	m.coded(0x4e20d400, "FADD V%0.4S, V%1.4S, V%2.4S", r, r, m.source(b))
}

func (m *arm64) accumulate(text string, acc, a Vec, b Src) {
	s, r := m.source(b), armVec(acc)
	m.named(text, []armReg{r}, []armReg{r, armVec(a), s})
}

func (m *arm64) MulAdd(acc, a Vec, b Src) {
	m.accumulate("VFMLA V%3.S4, V%2.S4, V%0.S4", acc, a, b)
}

func (m *arm64) MulSub(acc, a Vec, b Src) {
	m.accumulate("VFMLS V%3.S4, V%2.S4, V%0.S4", acc, a, b)
}

func (m *arm64) Horner(p, x Vec, c Src) Vec {
	r := m.Copy(c)
	m.MulAdd(r, p, x)
	return r
}

func (m *arm64) Sqrt(a Vec) Vec {
	v, r := m.newVec()
	m.coded(0x6ea1f800, "FSQRT V%0.4S, V%1.4S", r, armVec(a))
	return v
}

func (m *arm64) FloatOfInt(a Vec) Vec {
	v, r := m.newVec()
	m.coded(0x4e21d800, "SCVTF V%0.4S, V%1.4S", r, armVec(a))
	return v
}

func (m *arm64) SwapPairs(a Vec) Vec {
	v, r := m.newVec()
	m.named("VREV64 V%1.S4, V%0.S4", []armReg{r}, []armReg{armVec(a)})
	return v
}

func (m *arm64) Int8Factors(k Vec) Vec { return k }

func (m *arm64) DotInt8(acc, k Vec, q Each, dot bool) { m.DotUint8(acc, k, m.SplatAt(At(q)), dot) }

func (m *arm64) DotUint8(acc, v, w Vec, _ bool) {
	x, y, r := armVec(v), armVec(w), armVec(acc)
	_, low := m.newVec()
	_, high := m.newVec()
	m.coded(0x0e20c000, "SMULL V%0.8H, V%1.8B, V%2.8B", low, x, y)
	m.coded(0x4e20c000, "SMULL2 V%0.8H, V%1.16B, V%2.16B", high, x, y)
	m.coded(0x4e60bc00, "ADDP V%0.8H, V%1.8H, V%2.8H", low, low, high)
	m.emit(armInst{text: "SADALP V%0.4S, V%1.8H", word: 0x4e606800, shifts: []uint{0, 5}, args: []armReg{r, low}, defs: []armReg{r}, uses: []armReg{r, low}})
}

func (m *arm64) ShrInt(a Vec, n int) Vec {
	v, r := m.newVec()
	m.named(fmt.Sprintf("VUSHR $%d, V%%1.S4, V%%0.S4", n), []armReg{r}, []armReg{armVec(a)})
	return v
}
