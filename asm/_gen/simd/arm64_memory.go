package simd

import (
	"fmt"
)

// Loads and stores. A scalar load clears the lanes above it.

func moveSize(lanes int) string { return map[int]string{4: "FMOVQ", 2: "FMOVD", 1: "FMOVS"}[lanes] }

func lanesOf(t *Tail) int {
	if t == nil {
		return 4
	}
	return t.n
}

func (m *arm64) Load(a At, t *Tail) Vec {
	v, r := m.newVec()
	m.named(fmt.Sprintf("%s %d(R%%1), F%%0", moveSize(lanesOf(t)), a.Disp), []armReg{r}, []armReg{armGP(a.Base)})
	return v
}

func (m *arm64) LoadFill(a At, t *Tail, fill Vec) Vec {
	low := m.Load(a, t)
	if t == nil {
		return low
	}
	v := m.Copy(fill)
	element := map[int]string{2: "D", 1: "S"}[t.n]
	m.named(fmt.Sprintf("VMOV V%%2.%[1]s[0], V%%0.%[1]s[0]", element),
		[]armReg{armVec(v)}, []armReg{armVec(v), armVec(low)})
	return v
}

func (m *arm64) Store(a At, t *Tail, v Vec) {
	m.named(fmt.Sprintf("%s F%%0, %d(R%%1)", moveSize(lanesOf(t)), a.Disp), nil, []armReg{armVec(v), armGP(a.Base)})
}

func (m *arm64) StoreFirst(a At, v Vec) { m.Store(a, &Tail{n: 1}, v) }

func (m *arm64) SplatAt(a At) Vec {
	if a.Disp == 0 {
		v, r := m.newVec()
		m.named("VLD1R (R%1), [V%0.S4]", []armReg{r}, []armReg{armGP(a.Base)})
		return v
	}
	return m.dup(armVec(m.Load(a, &Tail{n: 1})))
}

func (m *arm64) SplatPast(p, step GP) Vec {
	v, r := m.newVec()
	base := armGP(p)
	m.named("VLD1R.P (R%2)(R%3), [V%0.S4]", []armReg{r, base}, []armReg{base, armGP(step)})
	return v
}

// hoisted is how many constants of a function stay in registers.
const hoisted = 16

// constant returns a register that holds c: loaded once at the function's
// start while there are registers for that, or else here.
func (m *arm64) constant(c Const) armReg {
	if r, ok := m.fn.consts[c]; ok {
		return r
	}
	r, g := m.new(true), m.new(false)
	load := []armInst{
		{text: fmt.Sprintf("MOVW $0x%08x, R%%0", uint32(c)), args: []armReg{g}, defs: []armReg{g}},
		{text: "VDUP R%1, V%0.S4", args: []armReg{r, g}, defs: []armReg{r}, uses: []armReg{g}},
	}
	if len(m.fn.consts) < hoisted {
		m.fn.consts[c] = r
		m.fn.prologue = append(m.fn.prologue, load...)
	} else {
		m.fn.insts = append(m.fn.insts, load...)
	}
	return r
}

func (m *arm64) Splat(c Const) Vec { return Vec{m.constant(c)} }

// source returns the register that holds s.
func (m *arm64) source(s Src) armReg {
	switch s := s.(type) {
	case Vec:
		return armVec(s)
	case Const:
		return m.constant(s)
	case At:
		return armVec(m.Load(s, nil))
	case Each:
		return armVec(m.SplatAt(At(s)))
	}
	panic(fmt.Sprintf("no operand for %T", s))
}

func (m *arm64) LoadBFloat16(a At) Vec {
	half := m.Load(a, &Tail{n: 2})
	v, r := m.newVec()
	m.coded(0x2e613800, "SHLL V%0.4S, V%1.4H, #16", r, armVec(half))
	return v
}

func (m *arm64) LoadInt8(a At) Vec {
	quarter := m.Load(a, &Tail{n: 1})
	v, r := m.newVec()
	m.coded(0x0f08a400, "SXTL V%0.8H, V%1.8B", r, armVec(quarter))
	m.coded(0x0f10a400, "SXTL V%0.4S, V%1.4H", r, r)
	m.coded(0x4e21d800, "SCVTF V%0.4S, V%1.4S", r, r)
	return v
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

func (m *arm64) StoreBytes(At, Vec) { panic("NEON: not written") }
