package simd

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/pass"
	"github.com/mmcloughlin/avo/printer"
	"github.com/mmcloughlin/avo/reg"
	"github.com/mmcloughlin/avo/x86"
)

// amd64 assembles for AVX2 (8 lanes) or AVX-512 (16 lanes) through avo.
type amd64 struct {
	*build.Context
	lanes  int
	consts map[Const]operand.Mem
	tables map[string]operand.Mem
	labels int

	// AVX-512 keeps a function's first constants in registers, loaded before
	// anything else: prologue.
	hoisted  map[Const]reg.VecVirtual
	prologue []ir.Node
}

// hoistLimit is how many constants of a function stay in registers.
const hoistLimit = 14

// NewAMD64 returns a machine with 8 lanes (AVX2, FMA, F16C) or 16 (AVX-512 F, BW, DQ, VL).
func NewAMD64(lanes int) Machine {
	m := &amd64{Context: build.NewContext(), lanes: lanes, consts: map[Const]operand.Mem{}, tables: map[string]operand.Mem{}}
	m.ConstraintExpr("!purego")
	return m
}

func (m *amd64) wide() bool { return m.lanes == 16 }
func (m *amd64) Lanes() int { return m.lanes }

func (m *amd64) Tier() string {
	if m.wide() {
		return "AVX512"
	}
	return "AVX2"
}

func (m *amd64) Func(name, signature, doc string) {
	m.Function(name + m.Tier())
	m.Attributes(attr.NOSPLIT)
	m.SignatureExpr(signature)
	m.Doc(strings.Split(doc, "\n")...)
	m.hoisted, m.prologue = map[Const]reg.VecVirtual{}, nil
}

func (m *amd64) End(result ...Vec) {
	for _, v := range result {
		ret, err := m.ReturnIndex(0).Resolve()
		check(err)
		m.VMOVSS(v.h.(reg.VecVirtual).AsX(), ret.Addr)
	}
	m.VZEROUPPER()
	m.RET()
	file, err := m.Result()
	check(err)
	functions := file.Functions()
	f := functions[len(functions)-1]
	f.Nodes = append(m.prologue, f.Nodes...)
}

func (m *amd64) Source() ([]byte, error) {
	f, err := m.Result()
	if err != nil {
		return nil, err
	}
	if err := pass.Compile.Execute(f); err != nil {
		return nil, err
	}
	for _, fn := range f.Functions() {
		fn.Nodes = slices.DeleteFunc(fn.Nodes, m.movesNothing)
	}
	return printer.NewGoAsm(printer.Config{Name: "asm/_gen", Pkg: "asm"}).Print(f)
}

// movesNothing tells of an instruction that moves a whole vector onto itself, as setting a
// variable comes to where one register was enough.
func (m *amd64) movesNothing(n ir.Node) bool {
	i, ok := n.(*ir.Instruction)
	if !ok || i.Opcode != "VMOVAPS" && i.Opcode != "VMOVUPS" || len(i.Operands) != 2 || len(i.Suffixes) > 0 {
		return false
	}
	from, isRegister := i.Operands[0].(reg.Physical)
	return isRegister && i.Operands[0] == i.Operands[1] && int(from.Size()) == 4*m.lanes
}

// Registers and memory.

func (m *amd64) vec() reg.VecVirtual {
	if m.wide() {
		return m.ZMM()
	}
	return m.YMM()
}

func (m *amd64) half() reg.VecVirtual {
	if m.wide() {
		return m.YMM()
	}
	return m.XMM()
}

func vecOf(v Vec) reg.VecVirtual { return v.h.(reg.VecVirtual) }
func gpOf(g GP) reg.GPVirtual    { return g.h.(reg.GPVirtual) }

func (m *amd64) mem(a At) operand.Mem {
	o := operand.Mem{Base: gpOf(a.Base), Disp: a.Disp}
	if a.index != nil {
		o.Index, o.Scale = gpOf(*a.index), a.scale
	}
	return o
}

// constant returns the RODATA place of c: four bytes to broadcast from on
// AVX-512, a whole vector on AVX2. Constants are local to the file.
func (m *amd64) constant(c Const) operand.Mem {
	if o, ok := m.consts[c]; ok {
		return o
	}
	o := m.StaticGlobal(fmt.Sprintf("const%08x", uint32(c)))
	m.DataAttributes(attr.RODATA | attr.NOPTR)
	n := m.lanes
	if m.wide() {
		n = 1
	}
	for range n {
		m.AppendDatum(operand.U32(c))
	}
	m.consts[c] = o
	return o
}

type encoder func(...operand.Op) (*ir.Instruction, error)

// operand returns the register or memory operand for s.
func (m *amd64) operand(s Src) operand.Op {
	switch s := s.(type) {
	case Vec:
		return vecOf(s)
	case At:
		return m.mem(s)
	case Const:
		if v, ok := m.hoist(s); ok {
			return v
		}
		return m.constant(s)
	case Each:
		if m.wide() {
			return m.mem(At(s))
		}
		return vecOf(m.SplatAt(At(s)))
	}
	panic(fmt.Sprintf("no operand for %T", s))
}

// hoist returns the register that holds c, if this function has one for it.
func (m *amd64) hoist(c Const) (reg.VecVirtual, bool) {
	if !m.wide() {
		return nil, false
	}
	v, ok := m.hoisted[c]
	if !ok && len(m.hoisted) < hoistLimit {
		v, ok = m.vec(), true
		m.hoisted[c] = v
		load, err := x86.VBROADCASTSS(m.constant(c), v)
		check(err)
		m.prologue = append(m.prologue, load)
	}
	return v, ok
}

// op emits one instruction; where its first operand is one number in memory the
// AVX-512 form that broadcasts is used.
func (m *amd64) op(plain, broadcast encoder, first Src, rest ...operand.Op) {
	o := m.operand(first)
	enc := plain
	if _, whole := first.(At); !whole && m.wide() && operand.IsMem(o) {
		enc = broadcast
	}
	in, err := enc(append([]operand.Op{o}, rest...)...)
	check(err)
	m.Instruction(in)
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func (m *amd64) Param(name string) GP {
	return GP{m.Context.Load(m.Context.Param(name), m.GP64())}
}

func (m *amd64) ParamSplat(name string) Vec {
	p, err := m.Context.Param(name).Resolve()
	check(err)
	v := m.vec()
	m.VBROADCASTSS(p.Addr, v)
	return Vec{v}
}

func (m *amd64) ZeroGP() GP {
	d := m.GP64()
	m.XORQ(d, d)
	return GP{d}
}

func (m *amd64) CopyGP(g GP) GP {
	d := m.GP64()
	m.MOVQ(gpOf(g), d)
	return GP{d}
}

func (m *amd64) AddGP(dst, src GP)    { m.ADDQ(gpOf(src), gpOf(dst)) }
func (m *amd64) SubGP(dst, src GP)    { m.SUBQ(gpOf(src), gpOf(dst)) }
func (m *amd64) AddImm(dst GP, n int) { m.ADDQ(operand.I32(n), gpOf(dst)) }
func (m *amd64) ShlImm(dst GP, n int) { m.SHLQ(operand.Imm(uint64(n)), gpOf(dst)) }
