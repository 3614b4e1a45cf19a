package dense

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
)

// MXBlock is how many numbers of MXFP4 share a scale (OCP Microscaling Formats, 2023).
const MXBlock = 32

// fp4 are the numbers of four bits: a sign, two bits of exponent, one of fraction.
var fp4 = [16]float32{0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6}

// fp4Pairs are the two numbers of a byte.
var fp4Pairs = func() (pairs [256][2]float32) {
	for b := range pairs {
		pairs[b] = [2]float32{fp4[b&15], fp4[b>>4]}
	}
	return pairs
}()

// DecodeMXFP4 sets dst to the numbers of blocks of 16 bytes with a scale each: byte b of a
// block has number 2b in its low bits and 2b+1 in its high bits, in units of 2^(scale-127).
// A scale of 255 is NaN.
func DecodeMXFP4(dst []float32, blocks, scales []byte) {
	for i := range len(dst) / MXBlock {
		unit := math.Float32frombits(max(uint32(scales[i])<<23, 1<<22)) // 2^-127 is a subnormal number
		if scales[i] == 255 {
			unit = float32(math.NaN())
		}
		to, from := (*[MXBlock]float32)(dst[i*MXBlock:]), (*[MXBlock / 2]byte)(blocks[i*MXBlock/2:])
		for b := range from {
			x := &fp4Pairs[from[b]]
			to[2*b], to[2*b+1] = x[0]*unit, x[1]*unit
		}
	}
}

// packed are weights [out, in] of MXFP4 that are expanded when they are used, some outputs at a
// time.
type packed struct {
	format         asm.Format // that they are expanded to; float32 has the bits of bfloat16
	out, in        int
	blocks, scales []byte
	unit           int // outputs that the kernels take together
}

// NewPackedLinear is NewLinear of weights [out, in] of MXFP4, which stay in 4 bits and are
// expanded to the format at use: the bits of a layer that was expanded when it was made. in must
// be a multiple of MXBlock. It keeps blocks and scales.
func NewPackedLinear(format asm.Format, out, in int, blocks, scales []byte, bias []float32) *Linear {
	p := &packed{format: format, out: out, in: in, blocks: blocks, scales: scales}
	p.unit = 4 * kernel.NewMatrix(kernel.Float32, mat.New(1, 1)).PanelCols()
	l := &Linear{packed: p, bias: bias, slow: 1, fingerprint: state.NewFingerprint("linear", int64(format))}
	whole := mat.New(out, in)
	DecodeMXFP4(whole.Data, blocks, scales)
	l.fingerprint.Matrices(whole)
	l.fingerprint.Floats(bias)
	if format == asm.BFloat16 { // which has all that two significant bits can say
		p.format = asm.Float32
	}
	return l
}

// expansion is working memory.
type expansion struct {
	w      []float32
	matrix kernel.Matrix
}

// expansions keeps those that are not in use.
var expansions scratch.List[expansion]

// expandedFloats is about how many weights are expanded together: what stays in the second cache.
const expandedFloats = 1 << 15

// outputs sets columns from up to to of dst, expanding the weights of some of them at a time.
func (p *packed) outputs(g *parallel.Group, dst, x blas32.General, bias []float32, from, to int) {
	e := expansions.Get()
	defer expansions.Put(e)
	each := max(expandedFloats/p.in/p.unit, 1) * p.unit
	for at := from; at < to && !g.Stopped(); at += each {
		n := min(each, to-at)
		e.w = scratch.Floats(e.w, n*p.in)
		p.decode(e.w[:n*p.in], at)
		e.matrix.PackT(kernel.Format(p.format), mat.Of(e.w, n, p.in))
		var b []float32
		if bias != nil {
			b = bias[at : at+n]
		}
		kernel.Gemm(mat.Columns(dst, at, n), x, &e.matrix, b)
	}
}

// decode sets w to the weights of outputs from one on.
func (p *packed) decode(w []float32, from int) {
	DecodeMXFP4(w, p.blocks[from*p.in/2:], p.scales[from*p.in/MXBlock:])
}

// column sets w to the weights of an output, as the kernels see them.
func (p *packed) column(w []float32, o int) {
	p.decode(w, o)
	kernel.NewMatrix(kernel.Format(p.format), mat.Of(w, p.in, 1)).Column(w, 0)
}
