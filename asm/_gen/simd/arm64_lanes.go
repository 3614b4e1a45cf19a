package simd

import "fmt"

// What crosses lanes.

func (m *arm64) SumLanes(v Vec) Vec {
	d, r := m.newVec()
	m.coded(0x6e20d400, "FADDP V%0.4S, V%1.4S, V%2.4S", r, armVec(v), armVec(v))
	m.coded(0x6e20d400, "FADDP V%0.4S, V%1.4S, V%2.4S", r, r, r)
	return d
}

func (m *arm64) Record() Mask            { return Mask{} }
func (m *arm64) NoNaN(Mask)              {}
func (m *arm64) FirstNaN(Mask, Vec, Vec) {}
func (m *arm64) SeeNaN(Mask, Vec, Vec)   {}

func (m *arm64) MaxLanes(v Vec, _ ...Mask) Vec { // FMAXV keeps NaN
	d, r := m.newVec()
	m.coded(0x6e30f800, "FMAXV S%0, V%1.4S", r, armVec(v))
	return d
}

func (m *arm64) SumAcross(v Vec) Vec { return m.SumLanes(v) } // FADDP leaves it in every lane
func (m *arm64) MaxAcross(v Vec) Vec { return m.dup(armVec(m.MaxLanes(v))) }

func (m *arm64) Transpose(rows []Vec) []Vec {
	pair := func(name string, a, b Vec) Vec {
		d, r := m.newVec()
		m.named(name, []armReg{r}, []armReg{armVec(a), armVec(b)})
		return d
	}
	const low, high = "VZIP1 V%2.S4, V%1.S4, V%0.S4", "VZIP2 V%2.S4, V%1.S4, V%0.S4"
	const first, second = "VZIP1 V%2.D2, V%1.D2, V%0.D2", "VZIP2 V%2.D2, V%1.D2, V%0.D2"
	a, b := pair(low, rows[0], rows[1]), pair(low, rows[2], rows[3])
	c, d := pair(high, rows[0], rows[1]), pair(high, rows[2], rows[3])
	return []Vec{pair(first, a, b), pair(second, a, b), pair(first, c, d), pair(second, c, d)}
}

func (m *arm64) interleave(width string, a, b Vec, high bool) Vec {
	zip := "VZIP1"
	if high {
		zip = "VZIP2"
	}
	v, r := m.newVec()
	m.named(fmt.Sprintf("%s V%%2.%[2]s, V%%1.%[2]s, V%%0.%[2]s", zip, width), []armReg{r}, []armReg{armVec(a), armVec(b)})
	return v
}

func (m *arm64) InterleaveBytes(a, b Vec, high bool) Vec { return m.interleave("B16", a, b, high) }
func (m *arm64) InterleavePairs(a, b Vec, high bool) Vec { return m.interleave("H8", a, b, high) }

func (m *arm64) TransposeQuarters([]Vec) []Vec { panic("NEON: a vector is one quarter") }

func (m *arm64) SumRows(rows []Vec) Vec {
	return m.reduceRows(rows, 0x6e20d400, "FADDP V%0.4S, V%1.4S, V%2.4S")
}

func (m *arm64) MaxRows(rows []Vec) Vec {
	return m.reduceRows(rows, 0x6e20f400, "FMAXP V%0.4S, V%1.4S, V%2.4S")
}

func (m *arm64) MulAddQuad(acc Vec, a, b At) { m.MulAdd(acc, m.Load(a, nil), b) }

func (m *arm64) reduceRows(rows []Vec, word uint32, name string) Vec {
	pair := func(a, b Vec) Vec {
		v, r := m.newVec()
		m.coded(word, name, r, armVec(a), armVec(b))
		return v
	}
	return pair(pair(rows[0], rows[1]), pair(rows[2], rows[3]))
}

func (m *arm64) StoreQuad(a At, v Vec, _ int) { m.Store(a, nil, v) }
