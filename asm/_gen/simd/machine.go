// Package simd is the vocabulary in which the kernels are written: a small set
// of operations that AVX2, AVX-512 and NEON all have, so that a kernel is
// written once and assembled three times.
//
// A kernel is a Go function that calls the methods of a [Machine]. Each call
// emits instructions; registers are virtual and are allocated at the end. Two
// implementations exist: the files amd64*.go, on top of avo, and arm64*.go, which print
// text and encode the vector instructions that the Go assembler does not know.
package simd

// Vec is a vector register: Lanes float32 (or 32-bit integers).
type Vec struct{ h handle }

// GP is a 64-bit general-purpose register.
type GP struct{ h handle }

// Mask is the result of a comparison, a truth value per lane.
type Mask struct{ h handle }

// handle is the virtual register of a Vec, GP or Mask; each machine has its own type.
type handle any

// Const is a 32-bit constant, the same in every lane.
type Const uint32

// At is a place in memory: Base plus a displacement in bytes.
type At struct {
	Base GP
	Disp int
	// index and scale are for [Rows]: amd64 addresses three rows from one pointer.
	index *GP
	scale uint8
}

// Plus returns the place n bytes further on.
func (a At) Plus(n int) At { a.Disp += n; return a }

// Each is a place of a number, the same for every lane.
type Each At

// Src is what most operations take as their last argument: a Vec, a Const, an At
// holding a whole vector, or an Each.
type Src interface{ isSrc() }

func (Vec) isSrc()   {}
func (Const) isSrc() {}
func (At) isSrc()    {}
func (Each) isSrc()  {}

// Tail stands for the last n < Lanes elements. A nil *Tail is a whole vector.
type Tail struct {
	mask Mask // amd64
	n    int  // NEON: 2 or 1 lanes
}

// Pred is a comparison; with a NaN on either side only Unordered holds, and NotLess on amd64.
type Pred int

// The comparisons a < b, a <= b, a > b, "a or b is NaN" and a >= b.
const (
	Less Pred = iota
	LessEqual
	Greater
	Unordered
	NotLess
)

// Machine is one instruction set.
type Machine interface {
	// Tier is the name the kernels carry as a suffix: AVX2, AVX512 or NEON.
	Tier() string
	// Lanes is how many float32 a vector has.
	Lanes() int

	// Func begins a function. The signature is Go's, over *T, int and float32,
	// and doc its comment; name is given without the tier.
	Func(name, signature, doc string)
	// End returns from the function; a Vec, if given, returns its first lane.
	End(result ...Vec)
	// Source returns the assembled file.
	Source() ([]byte, error)

	Param(name string) GP
	// ParamSplat fills every lane with a float32 parameter.
	ParamSplat(name string) Vec

	ZeroGP() GP
	CopyGP(GP) GP
	AddGP(dst, src GP)
	SubGP(dst, src GP)
	AddImm(dst GP, n int)
	ShlImm(dst GP, n int)
	// Loop runs body while n >= step, taking step from n each time.
	Loop(n GP, step int, body func())
	// First runs body where n >= step, taking step from n, and other where not; on NEON always
	// other.
	First(n GP, step int, body, other func())
	// Tail runs body once for the last n < Lanes elements, n as Loop left it
	// (on NEON up to twice, for two elements and for one); n is used up.
	Tail(n GP, body func(*Tail))
	// Rows returns the places base, base+stride, ... of count rows; all move
	// together under Advance. base is used up.
	Rows(base, stride GP, count int) Rows
	// Rows16 is Rows of 16 rows, in few registers on amd64.
	Rows16(base, stride GP) Rows

	Load(At, *Tail) Vec
	// LoadFill loads like Load; lanes beyond the tail take fill's instead of zero.
	LoadFill(at At, t *Tail, fill Vec) Vec
	Store(At, *Tail, Vec)
	// StoreFirst stores the first lane.
	StoreFirst(At, Vec)
	// SplatAt fills every lane with the float32 at a place.
	SplatAt(At) Vec
	// SplatPast is SplatAt for p, which then stands step bytes further on: one instruction on
	// NEON.
	SplatPast(p, step GP) Vec
	// Splat loads a constant into a register, for use in loops.
	Splat(Const) Vec
	// LoadBFloat16 widens Lanes bfloat16; LoadInt8 converts Lanes int8.
	LoadBFloat16(At) Vec
	LoadInt8(At) Vec
	// LoadFloat16 widens Lanes float16.
	LoadFloat16(At) Vec
	// Prefetch asks for the cache line of a place, mapped or not, into the second
	// cache.
	Prefetch(At)

	Copy(Src) Vec
	Zero() Vec
	Add(a Vec, b Src) Vec
	Sub(a Vec, b Src) Vec
	Mul(a Vec, b Src) Vec
	Div(a Vec, b Src) Vec
	Sqrt(Vec) Vec
	Min(a Vec, b Src) Vec
	Max(a Vec, b Src) Vec
	And(a Vec, b Src) Vec
	Or(a Vec, b Src) Vec
	Xor(a Vec, b Src) Vec
	AddInt(a Vec, b Src) Vec
	ShlInt(a Vec, n int) Vec
	// ShrInt shifts zeros in.
	ShrInt(a Vec, n int) Vec
	// Int8Factors returns a vector of int8 as DotInt8 takes it: on amd64, whose products
	// of bytes have one factor without sign, 128 is added to each.
	Int8Factors(Vec) Vec
	// DotInt8 adds to each lane of acc, an integer, the sum of the products of its four
	// bytes of k and those of q: of magnitudes up to 127 and 64. Where dot is set it is one
	// instruction, which not all processors of a tier have; see HasDot.
	DotInt8(acc, k Vec, q Each, dot bool)
	// DotUint8 is DotInt8 for bytes of w without sign, up to 127, and bytes of v as they are.
	DotUint8(acc, v, w Vec, dot bool)
	// InterleaveBytes returns the bytes of a and b in turns, of the lower or the higher half of
	// each quarter (of 128 bits); InterleavePairs takes two bytes at a time.
	InterleaveBytes(a, b Vec, high bool) Vec
	InterleavePairs(a, b Vec, high bool) Vec
	// FloatOfInt converts signed integers.
	FloatOfInt(a Vec) Vec
	// SwapPairs exchanges lanes 2i and 2i+1.
	SwapPairs(a Vec) Vec
	// ScaleExp2 returns p * 2^n for an n that z = roundMagic + n holds in its low
	// bits and that leaves the result a normal number; p is not NaN, except on
	// AVX-512.
	ScaleExp2(p, n, z Vec) Vec
	// ScaleExp2Where is ScaleExp2 where m holds and 0 elsewhere.
	ScaleExp2Where(m Mask, p, n, z Vec) Vec
	Cmp(p Pred, a Vec, b Src) Mask
	// Select returns t where m holds and f elsewhere.
	Select(m Mask, t Src, f Vec) Vec

	// Set copies v into dst, SetWhere only where m holds; AddTo adds b to acc.
	Set(dst, v Vec)
	SetWhere(m Mask, dst, v Vec)
	AddTo(acc Vec, b Src)
	// MulAdd and MulSub change acc: acc += a*b, acc -= a*b, rounded once.
	MulAdd(acc, a Vec, b Src)
	MulSub(acc, a Vec, b Src)
	// Horner returns p*x + c, rounded once; p is used up.
	Horner(p, x Vec, c Src) Vec

	// Record is one of whether there was a NaN, for Max alone may lose one: NoNaN begins it, or
	// FirstNaN with two vectors, and SeeNaN adds two.
	Record() Mask
	NoNaN(seen Mask)
	FirstNaN(seen Mask, a, b Vec)
	SeeNaN(seen Mask, a, b Vec)
	// SumLanes and MaxLanes reduce to the first lane, in an order that is the machine's own.
	SumLanes(Vec) Vec
	// MaxLanes is NaN where one of the records, or on NEON v, has seen one.
	MaxLanes(v Vec, seen ...Mask) Vec
	// SumRows returns the sums of up to Lanes rows, a multiple of four, in the first
	// lanes, each in an order that does not depend on how many there are.
	SumRows(rows []Vec) Vec
	// MaxRows is SumRows for maxima; a NaN may be lost.
	MaxRows(rows []Vec) Vec
	// MulAddQuad is MulAdd for the first four lanes, of numbers in memory; it may spoil the
	// others.
	MulAddQuad(acc Vec, a, b At)
	// StoreQuad stores four lanes, from 4*quad on.
	StoreQuad(at At, v Vec, quad int)
	// Transpose returns the columns of Lanes rows.
	Transpose(rows []Vec) []Vec
	// TransposeQuarters returns vectors of which i has quarter i (of 128 bits) of each of four:
	// of AVX-512 alone.
	TransposeQuarters(rows []Vec) []Vec
	// StoreBytes stores the lowest byte of each lane: AVX-512 alone.
	StoreBytes(At, Vec)
	// SumAcross and MaxAcross are the same in every lane; a NaN may be lost by MaxAcross.
	SumAcross(Vec) Vec
	MaxAcross(Vec) Vec
}

// Rows are places that move together.
type Rows interface {
	At(row int) At
	Advance(bytes int)
	AdvanceGP(bytes GP)
}

// pointers move together.
type pointers struct {
	m    Machine
	list []GP
}

func (r *pointers) Advance(bytes int) {
	for _, p := range r.list {
		r.m.AddImm(p, bytes)
	}
}

func (r *pointers) AdvanceGP(bytes GP) {
	for _, p := range r.list {
		r.m.AddGP(p, bytes)
	}
}

// HasDot tells whether a machine has an instruction for DotInt8, on some processors.
func HasDot(m Machine) bool { return m.Tier() == "AVX512" }

// HasPast tells whether SplatPast is one instruction, for rows that have a pointer each.
func HasPast(m Machine) bool { return m.Tier() == "NEON" }

// HasPrefetch tells whether Prefetch does anything.
func HasPrefetch(m Machine) bool { return m.Tier() != "NEON" }

// Bytes is the size of a vector.
func Bytes(m Machine) int { return 4 * m.Lanes() }

// MaxNaN returns the larger of acc and x, or NaN where either is one.
func MaxNaN(m Machine, acc, x Vec) Vec {
	if m.Tier() == "NEON" { // FMAX keeps NaN
		return m.Max(acc, x)
	}
	// MAXPS(x, acc) is acc where either is NaN.
	return m.Select(m.Cmp(Unordered, x, x), x, m.Max(x, acc))
}

// AtLeast returns the larger of x and c, or NaN where x is one.
func AtLeast(m Machine, x Vec, c Const) Vec {
	return m.Max(m.Splat(c), x) // MAXPS(c, x) is x where x is NaN
}

// Chunk is one step of Stream: Count whole vectors, or one vector's Tail.
type Chunk struct {
	Count int
	tail  *Tail
	m     Machine
}

// Load loads vector i of the step from a stream.
func (c *Chunk) Load(p GP, i int) Vec { return c.m.Load(c.at(p, i), c.tail) }

// LoadFill is Load with fill beyond the end.
func (c *Chunk) LoadFill(p GP, i int, fill Vec) Vec { return c.m.LoadFill(c.at(p, i), c.tail, fill) }

// Store stores vector i of the step to a stream.
func (c *Chunk) Store(p GP, i int, v Vec) { c.m.Store(c.at(p, i), c.tail, v) }

func (c *Chunk) at(p GP, i int) At { return At{Base: p, Disp: i * Bytes(c.m)} }

// Stream walks n elements of several arrays at once: unroll vectors at a time,
// then one at a time, then the tail. The pointers and n are used up.
func Stream(m Machine, n GP, unroll int, arrays []GP, body func(*Chunk)) {
	whole := func(count int) {
		m.Loop(n, count*m.Lanes(), func() {
			body(&Chunk{Count: count, m: m})
			for _, p := range arrays {
				m.AddImm(p, count*Bytes(m))
			}
		})
	}
	if unroll > 1 {
		whole(unroll)
	}
	whole(1)
	m.Tail(n, func(t *Tail) {
		body(&Chunk{Count: 1, tail: t, m: m})
		AdvanceTail(m, t, arrays...)
	})
}

// AdvanceTail moves the pointers past the elements of t, for NEON, which may
// come back for one more.
func AdvanceTail(m Machine, t *Tail, pointers ...GP) {
	for _, p := range pointers {
		if t.n > 0 {
			m.AddImm(p, 4*t.n)
		}
	}
}
