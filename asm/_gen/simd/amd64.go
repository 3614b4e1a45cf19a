package simd

import (
	"fmt"
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
	return printer.NewGoAsm(printer.Config{Name: "asm/_gen", Pkg: "asm"}).Print(f)
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

// op emits one instruction; where its first operand is in memory and a constant
// the AVX-512 form that broadcasts is used.
func (m *amd64) op(plain, broadcast encoder, first Src, rest ...operand.Op) {
	o := m.operand(first)
	enc := plain
	if _, ok := first.(Const); ok && m.wide() && operand.IsMem(o) {
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
	m      *amd64
	bases  []GP
	stride GP
}

func (m *amd64) Rows(base, stride GP, count int) Rows {
	r := &amd64Rows{m: m, bases: []GP{base}, stride: stride}
	for i := 3; i < count; i += 3 {
		p := m.GP64()
		m.LEAQ(operand.Mem{Base: gpOf(r.bases[len(r.bases)-1]), Index: gpOf(stride), Scale: 2}, p)
		m.ADDQ(gpOf(stride), p)
		r.bases = append(r.bases, GP{p})
	}
	return r
}

func (r *amd64Rows) At(row int) At {
	a := At{Base: r.bases[row/3]}
	if s := row % 3; s > 0 {
		a.index, a.scale = &r.stride, uint8(s)
	}
	return a
}

func (r *amd64Rows) Advance(bytes int) {
	for _, p := range r.bases {
		r.m.AddImm(p, bytes)
	}
}

func (r *amd64Rows) AdvanceGP(bytes GP) {
	for _, p := range r.bases {
		r.m.AddGP(p, bytes)
	}
}

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

func (m *amd64) SplatAt(a At) Vec {
	v := m.vec()
	m.VBROADCASTSS(m.mem(a), v)
	return Vec{v}
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

func (m *amd64) Cmp(p Pred, a Vec, b Src) Mask {
	// Quiet predicates of VCMPPS; all but UNORD_Q are false for NaN.
	imm := operand.Imm(map[Pred]uint64{Less: 0x11, LessEqual: 0x12, Greater: 0x1e, Unordered: 0x03}[p])
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

// Reductions: the upper half onto the lower until one lane is left.

func (m *amd64) halves(v Vec, combine func(a, b reg.VecVirtual) reg.VecVirtual) Vec {
	w := vecOf(v)
	if m.wide() {
		high := m.YMM()
		m.VEXTRACTF64X4(operand.Imm(1), w, high)
		w = combine(w.AsY().(reg.VecVirtual), high)
	}
	high := m.XMM()
	m.VEXTRACTF128(operand.Imm(1), w.AsY(), high)
	w = combine(w.AsX().(reg.VecVirtual), high)
	for _, shuffle := range []uint64{0x4e, 0xb1} {
		other := m.XMM()
		m.VPERMILPS(operand.Imm(shuffle), w, other)
		w = combine(w, other)
	}
	return Vec{w}
}

func (m *amd64) like(v reg.VecVirtual) reg.VecVirtual {
	switch v.Size() {
	case 32:
		return m.YMM()
	case 16:
		return m.XMM()
	}
	return m.ZMM()
}

func (m *amd64) SumLanes(v Vec) Vec {
	return m.halves(v, func(a, b reg.VecVirtual) reg.VecVirtual {
		d := m.like(b)
		m.VADDPS(b, a, d)
		return d
	})
}

func (m *amd64) MaxLanes(v Vec) Vec {
	return m.halves(v, func(a, b reg.VecVirtual) reg.VecVirtual { // as MaxNaN
		larger, nan, d := m.like(b), m.like(b), m.like(b)
		m.VMAXPS(b, a, larger) // b where either is NaN
		if m.wide() {
			k := m.K()
			m.VCMPPS(operand.Imm(0x03), a, a, k)
			m.VBLENDMPS(a, larger, k, d)
			return d
		}
		m.VCMPPS(operand.Imm(0x03), a, a, nan)
		m.VBLENDVPS(nan, a, larger, d)
		return d
	})
}

// across combines lanes half a vector apart, then a quarter, and so on.
func (m *amd64) across(v Vec, combine func(a Vec, b Src) Vec) Vec {
	swap := func(shuffle func(d reg.VecVirtual)) {
		d := m.vec()
		shuffle(d)
		v = combine(v, Vec{d})
	}
	if m.wide() {
		swap(func(d reg.VecVirtual) { m.VSHUFF32X4(operand.Imm(0x4e), vecOf(v), vecOf(v), d) })
		swap(func(d reg.VecVirtual) { m.VSHUFF32X4(operand.Imm(0xb1), vecOf(v), vecOf(v), d) })
	} else {
		swap(func(d reg.VecVirtual) { m.VPERM2F128(operand.Imm(0x01), vecOf(v), vecOf(v), d) })
	}
	for _, shuffle := range []uint64{0x4e, 0xb1} {
		swap(func(d reg.VecVirtual) { m.VPERMILPS(operand.Imm(shuffle), vecOf(v), d) })
	}
	return v
}

func (m *amd64) SumAcross(v Vec) Vec { return m.across(v, m.Add) }
func (m *amd64) MaxAcross(v Vec) Vec { return m.across(v, m.Max) }

// Transpose interleaves pairs of rows, then pairs of those, so that each quarter
// (of 128 bits) of a vector holds one column of four rows; then it gathers
// quarters.
func (m *amd64) Transpose(rows []Vec) []Vec {
	pair := func(f func(...operand.Op), a, b Vec) Vec {
		d := m.vec()
		f(vecOf(b), vecOf(a), d)
		return Vec{d}
	}
	halves := func(imm uint64, a, b Vec) Vec {
		d := m.vec()
		m.VPERM2F128(operand.Imm(imm), vecOf(b), vecOf(a), d)
		return Vec{d}
	}
	quarters := func(imm uint64, a, b Vec) Vec {
		d := m.vec()
		m.VSHUFF32X4(operand.Imm(imm), vecOf(b), vecOf(a), d)
		return Vec{d}
	}
	four := make([][]Vec, 0, 4) // of rows 4g ... 4g+3, columns c, 4+c, ...
	for g := 0; g < len(rows); g += 4 {
		r := rows[g : g+4]
		a, b := pair(m.VUNPCKLPS, r[0], r[1]), pair(m.VUNPCKLPS, r[2], r[3])
		c, d := pair(m.VUNPCKHPS, r[0], r[1]), pair(m.VUNPCKHPS, r[2], r[3])
		four = append(four, []Vec{pair(m.VUNPCKLPD, a, b), pair(m.VUNPCKHPD, a, b), pair(m.VUNPCKLPD, c, d), pair(m.VUNPCKHPD, c, d)})
	}
	columns := make([]Vec, len(rows))
	for c := range 4 {
		if !m.wide() {
			columns[c] = halves(0x20, four[0][c], four[1][c])
			columns[4+c] = halves(0x31, four[0][c], four[1][c])
			continue
		}
		for i, imm := range []uint64{0x88, 0xdd} { // even and odd quarters
			x, y := quarters(imm, four[0][c], four[1][c]), quarters(imm, four[2][c], four[3][c])
			columns[4*i+c] = quarters(0x88, x, y)
			columns[4*(i+2)+c] = quarters(0xdd, x, y)
		}
	}
	return columns
}
