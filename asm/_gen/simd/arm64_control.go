package simd

import (
	"fmt"
)

// Loops, tails and rows.

func (m *arm64) newLabel(what string) string {
	m.labels++
	return fmt.Sprintf("%s%d", what, m.labels)
}

func (m *arm64) label(l string) { m.emit(armInst{label: l}) }

func (m *arm64) branch(text, target string, uses ...armReg) {
	m.emit(armInst{text: text + " " + target, args: uses, uses: uses, target: target})
}

func (m *arm64) Loop(n GP, step int, body func()) {
	loop, end := m.newLabel("loop"), m.newLabel("end")
	r := armGP(n)
	compare := func() { m.named(fmt.Sprintf("CMP $%d, R%%0", step), nil, []armReg{r}) }
	compare()
	m.branch("BLT", end)
	m.label(loop)
	body()
	m.AddImm(n, -step)
	compare()
	m.branch("BGE", loop)
	m.label(end)
}

func (m *arm64) Tail(n GP, body func(*Tail)) {
	for _, lanes := range []int{2, 1} {
		end := m.newLabel("end")
		m.branch(fmt.Sprintf("TBZ $%d, R%%0,", lanes/2), end, armGP(n))
		body(&Tail{n: lanes})
		m.label(end)
	}
}

// armRows has a pointer for each row.
type armRows struct{ pointers }

func (m *arm64) Rows(base, stride GP, count int) Rows {
	r := &armRows{pointers{m, []GP{base}}}
	for i := 1; i < count; i++ {
		g, p := m.newGP()
		m.named("ADD R%2, R%1, R%0", []armReg{p}, []armReg{armGP(r.list[i-1]), armGP(stride)})
		r.list = append(r.list, g)
	}
	return r
}

func (r *armRows) At(row int) At { return At{Base: r.list[row]} }

func (m *arm64) Rows16(base, stride GP) Rows { return m.Rows(base, stride, 16) }

func (m *arm64) First(_ GP, _ int, _, other func()) { other() }
