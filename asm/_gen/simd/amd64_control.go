package simd

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/operand"
)

// Loops, tails and rows.

func (m *amd64) newLabel(what string) string {
	m.labels++
	return fmt.Sprintf("%s%d", what, m.labels)
}

func (m *amd64) Loop(n GP, step int, body func()) {
	loop, end := m.newLabel("loop"), m.newLabel("end")
	m.CMPQ(gpOf(n), operand.I32(step))
	m.JLT(operand.LabelRef(end))
	m.Label(loop)
	body()
	m.SUBQ(operand.I32(step), gpOf(n))
	m.CMPQ(gpOf(n), operand.I32(step))
	m.JGE(operand.LabelRef(loop))
	m.Label(end)
}

func (m *amd64) First(n GP, step int, body, other func()) {
	less, end := m.newLabel("less"), m.newLabel("end")
	m.SUBQ(operand.I32(step), gpOf(n))
	m.JLT(operand.LabelRef(less))
	body()
	m.JMP(operand.LabelRef(end))
	m.Label(less)
	m.ADDQ(operand.I32(step), gpOf(n))
	other()
	m.Label(end)
}

func (m *amd64) Tail(n GP, body func(*Tail)) {
	end := m.newLabel("end")
	g := gpOf(n)
	m.TESTQ(g, g)
	m.JE(operand.LabelRef(end))
	t := &Tail{}
	if m.wide() { // mask = 1<<n - 1, from a table of 16-bit masks
		table := m.table("tailMasks", 16, func(i int) operand.Constant { return operand.U16(1<<i - 1) })
		p, k := m.GP64(), m.K()
		m.LEAQ(table, p)
		m.KMOVW(operand.Mem{Base: p, Index: g, Scale: 2}, k)
		t.mask = Mask{k}
	} else { // eight ones then eight zeros, read from 8-n
		table := m.table("tailMasks", 16, func(i int) operand.Constant {
			if i < 8 {
				return operand.U32(0xffffffff)
			}
			return operand.U32(0)
		})
		p, v := m.GP64(), m.vec()
		m.LEAQ(table, p)
		m.NEGQ(g)
		m.VMOVDQU(operand.Mem{Base: p, Index: g, Scale: 4, Disp: 32}, v)
		t.mask = Mask{v}
	}
	body(t)
	m.Label(end)
}

// table returns a named RODATA table, made at its first use in the file.
func (m *amd64) table(name string, n int, at func(int) operand.Constant) operand.Mem {
	if o, ok := m.tables[name]; ok {
		return o
	}
	o := m.StaticGlobal(name)
	m.DataAttributes(attr.RODATA | attr.NOPTR)
	for i := range n {
		m.AppendDatum(at(i))
	}
	m.tables[name] = o
	return o
}

// amd64Rows reaches three rows from one pointer: p, p+stride and p+2*stride.
type amd64Rows struct {
	pointers
	stride GP
}

func (m *amd64) Rows(base, stride GP, count int) Rows {
	r := &amd64Rows{pointers{m, []GP{base}}, stride}
	for i := 3; i < count; i += 3 {
		p := m.GP64()
		m.LEAQ(operand.Mem{Base: gpOf(r.list[len(r.list)-1]), Index: gpOf(stride), Scale: 2}, p)
		m.ADDQ(gpOf(stride), p)
		r.list = append(r.list, GP{p})
	}
	return r
}

func (r *amd64Rows) At(row int) At {
	a := At{Base: r.list[row/3]}
	if s := row % 3; s > 0 {
		a.index, a.scale = &r.stride, uint8(s)
	}
	return a
}

// amd64Rows16 reaches 16 rows from three pointers, at p, p+2*stride and p+7*stride, through
// the stride and three times the stride.
type amd64Rows16 struct {
	pointers
	strides [2]GP
}

func (m *amd64) Rows16(base, stride GP) Rows {
	third, late, early := m.GP64(), m.GP64(), m.GP64()
	m.LEAQ(operand.Mem{Base: gpOf(stride), Index: gpOf(stride), Scale: 2}, third)
	m.LEAQ(operand.Mem{Base: gpOf(base), Index: gpOf(stride), Scale: 2}, early)
	m.LEAQ(operand.Mem{Base: gpOf(base), Index: third, Scale: 2}, late)
	m.ADDQ(gpOf(stride), late)
	return &amd64Rows16{pointers{m, []GP{base, {early}, {late}}}, [2]GP{stride, {third}}}
}

func (r *amd64Rows16) At(row int) At {
	for i, start := range [...]int{0, 2, 7} {
		if row == start {
			return At{Base: r.list[i]}
		}
		for s, times := range [...]int{1, 3} {
			for _, scale := range [...]int{1, 2, 4, 8} {
				if row == start+times*scale {
					return At{Base: r.list[i], index: &r.strides[s], scale: uint8(scale)}
				}
			}
		}
	}
	panic("no such row")
}
