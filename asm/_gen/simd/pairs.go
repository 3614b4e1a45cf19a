package simd

import "github.com/mmcloughlin/avo/operand"

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
