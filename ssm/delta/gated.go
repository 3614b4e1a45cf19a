package delta

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state"
)

// GatedDeltaConfig fixes a GatedDelta block.
type GatedDeltaConfig struct {
	// Heads is how many value heads there are (linear_num_value_heads), KeyHeads how many
	// heads of keys and of queries (linear_num_key_heads), a divisor; 0 is Heads.
	Heads, KeyHeads int
	// KeyDim and ValueDim are the channels of a head.
	KeyDim, ValueDim int
	// NegativeEigen doubles beta, so that it goes to 2 (linear_allow_neg_eigval).
	NegativeEigen bool
	// NormEps is that of the norm in front of the last projection (rms_norm_eps); 0 is
	// 1e-6.
	NormEps float64
	// Format is how the projections' weights are stored; 0 is Float32.
	Format asm.Format
	// Scratch is working memory to share with other blocks; nil is the block's own.
	Scratch *Scratch
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// GatedDeltaWeights are the weights of a GatedDelta block, as checkpoints of Qwen3.5 have
// them. SplitQKVZ makes them of those of Qwen3-Next.
type GatedDeltaWeights struct {
	// InQKV is in_proj_qkv.weight [2 KeyHeads KeyDim + Heads ValueDim, Dim]: queries of all
	// heads, keys, values.
	InQKV blas32.General
	// InZ is in_proj_z.weight [Heads ValueDim, Dim], the gate of the output.
	InZ blas32.General
	// InB and InA are in_proj_b.weight and in_proj_a.weight [Heads, Dim], of beta and of
	// the decay.
	InB, InA blas32.General
	// Conv is conv1d.weight [2 KeyHeads KeyDim + Heads ValueDim, taps].
	Conv blas32.General
	// ALog is A_log [Heads], DtBias dt_bias [Heads].
	ALog, DtBias []float32
	// Norm is norm.weight [ValueDim], used as it is: not 1 + weight.
	Norm []float32
	// Out is out_proj.weight [Dim, Heads ValueDim].
	Out blas32.General
}

// GatedDelta is the block of Gated DeltaNet (Yang, Kautz and Hatamizadeh 2024, arXiv
// 2412.06464) as Qwen3-Next and Qwen3.5 have it:
//
//	q, k, v = silu(conv(in_qkv(x)));  q, k = q/|q|, k/|k| of each head
//	g = -exp(A_log) softplus(in_a(x) + dt_bias);  beta = sigmoid(in_b(x))
//	S = exp(g) S;  S = S + k (beta (v - S^T k))^T;  o = S^T q / sqrt(KeyDim)
//	dst = out(rmsnorm(o of each head) norm silu(in_z(x)))
//
// It is immutable and safe for concurrent use.
type GatedDelta struct{ gated }

// gatedGates are GatedDelta's: [Heads] each, and where z and a stand in the projection.
type gatedGates struct {
	rate, bias []float32 // -exp(A_log), dt_bias
	z, a       int
}

// NewGatedDelta returns a block, or an error that matches ErrConfig. It keeps none of the
// weights' memory.
func NewGatedDelta(cfg GatedDeltaConfig, w GatedDeltaWeights) (*GatedDelta, error) {
	f := gatedFrame{
		dim: w.Out.Rows, double: cfg.NegativeEigen, eps: cfg.NormEps, defaultEps: 1e-6, format: cfg.Format, scratch: cfg.Scratch,
		rec: Config{Heads: cfg.Heads, KeyHeads: cfg.KeyHeads, KeyDim: cfg.KeyDim, ValueDim: cfg.ValueDim, Decay: HeadDecay, Erase: EraseKey, Normalize: true, Workers: cfg.Workers},
	}
	if err := f.begin(); err != nil {
		return nil, err
	}
	c := &f.rec
	keys, values := c.KeyHeads*c.KeyDim, c.Heads*c.ValueDim
	f.project("InQKV", w.InQKV, 2*keys+values)
	f.project("InZ", w.InZ, values)
	f.project("InB", w.InB, c.Heads)
	f.project("InA", w.InA, c.Heads)
	f.convolve("Conv", w.Conv, 2*keys+values)
	g := &gatedGates{z: 2*keys + values, a: 2*keys + 2*values + c.Heads}
	alog := f.pack.Vector("ALog", w.ALog, c.Heads, false)
	g.bias = f.pack.Vector("DtBias", w.DtBias, c.Heads, false)
	b := new(GatedDelta)
	if err := f.finish(&b.gated, w.Norm, w.Out, 2*keys+2*values, g); err != nil {
		return nil, err
	}
	g.rate = negativeExp(alog)
	b.identify("GatedDelta", []int64{}, alog, g.bias)
	return b, nil
}

// negativeExp returns -exp(x): decay rates of their logarithms.
func negativeExp(x []float32) []float32 {
	out := make([]float32, len(x))
	for i, v := range x {
		out[i] = float32(-math.Exp(float64(v)))
	}
	return out
}

func (g *gatedGates) decays(dst, u blas32.General) {
	for t := range dst.Rows {
		row := mat.Row(dst, t)
		asm.Add(row, mat.Part(u, t, g.a, len(row)), g.bias)
		asm.Softplus(row, row)
		asm.Mul(row, row, g.rate)
	}
}

func (g *gatedGates) gate(_ *blockWork, dst, u blas32.General) {
	for t := range dst.Rows {
		asm.SiLU(mat.Row(dst, t), mat.Part(u, t, g.z, dst.Cols))
	}
}

// SplitQKVZ takes the fused projections of Qwen3-Next apart: in_proj_qkvz.weight
// [2 KeyHeads KeyDim + 2 Heads ValueDim, Dim] and in_proj_ba.weight [2 Heads, Dim], whose
// rows stand key head by key head, q, k, v and z of its value heads, b and a of them. It
// returns copies, the first four of GatedDeltaWeights. Errors match ErrConfig or ErrShape.
func SplitQKVZ(cfg GatedDeltaConfig, qkvz, ba blas32.General) (qkv, z, b, a blas32.General, err error) {
	none := blas32.General{}
	c := Config{Heads: cfg.Heads, KeyHeads: cfg.KeyHeads, KeyDim: cfg.KeyDim, ValueDim: cfg.ValueDim, Workers: cfg.Workers}
	if err := c.complete(); err != nil {
		return none, none, none, none, err
	}
	groups, each := c.KeyHeads, c.Heads/c.KeyHeads
	keys, values := groups*c.KeyDim, c.Heads*c.ValueDim
	if qkvz.Cols <= 0 || qkvz.Cols > maxSize {
		return none, none, none, none, check.Errorf(ErrShape, "delta: qkvz has %d columns, want Dim, 1 to %d", qkvz.Cols, maxSize)
	}
	for _, m := range [...]struct {
		name string
		m    blas32.General
		rows int
	}{{"qkvz", qkvz, 2*keys + 2*values}, {"ba", ba, 2 * c.Heads}} {
		if err := check.Matrix(ErrShape, "delta", m.name, m.m, m.rows, qkvz.Cols, "Dim"); err != nil {
			return none, none, none, none, err
		}
	}
	dim := qkvz.Cols
	qkv, z, b, a = mat.New(2*keys+values, dim), mat.New(values, dim), mat.New(c.Heads, dim), mat.New(c.Heads, dim)
	at, from := 0, qkvz
	move := func(dst blas32.General, to, n int) {
		mat.Copy(mat.Rows(dst, to, to+n), mat.Rows(from, at, at+n))
		at += n
	}
	for j := range groups {
		move(qkv, j*c.KeyDim, c.KeyDim)
		move(qkv, keys+j*c.KeyDim, c.KeyDim)
		move(qkv, 2*keys+j*each*c.ValueDim, each*c.ValueDim)
		move(z, j*each*c.ValueDim, each*c.ValueDim)
	}
	at, from = 0, ba
	for j := range groups {
		move(b, j*each, each)
		move(a, j*each, each)
	}
	return qkv, z, b, a, nil
}

// gatedFrame makes a gated block of weights.
type gatedFrame struct {
	dim             int
	double          bool
	eps, defaultEps float64
	format          asm.Format
	scratch         *Scratch
	rec             Config

	pack  dense.Packer
	parts []blas32.General // of the projection in
	taps  blas32.General
}

// begin checks the Config.
func (f *gatedFrame) begin() error {
	if err := f.rec.complete(); err != nil {
		return err
	}
	if f.eps == 0 {
		f.eps = f.defaultEps
	}
	if !(f.eps > 0) || math.IsInf(f.eps, 0) {
		return check.Errorf(ErrConfig, "delta: NormEps is %v, want a finite number above 0", f.eps)
	}
	if f.format > asm.Float16 {
		return check.Errorf(ErrConfig, "delta: Format is %d, want %d to %d", f.format, asm.Float32, asm.Float16)
	}
	if f.dim <= 0 || f.dim > maxSize {
		return check.Errorf(ErrConfig, "delta: Out has %d rows, want Dim, 1 to %d", f.dim, maxSize)
	}
	f.pack = dense.Packer{Package: "delta", Format: f.format, Eps: float32(f.eps)}
	return nil
}

// project adds rows to the projection in.
func (f *gatedFrame) project(name string, m blas32.General, rows int) {
	f.pack.Matrix(name, m, rows, f.dim)
	f.parts = append(f.parts, m)
}

// convolve adds channels to the convolution: [rows, taps].
func (f *gatedFrame) convolve(name string, m blas32.General, rows int) {
	taps := f.taps.Rows
	if taps == 0 {
		taps = m.Cols
	}
	if f.pack.Err == nil && (taps < 1 || taps > 1<<10) {
		f.pack.Err = check.Errorf(ErrConfig, "delta: %s has %d columns, want 1 to %d taps", name, taps, 1<<10)
	}
	f.pack.Matrix(name, m, rows, taps)
	if f.pack.Err != nil {
		return
	}
	was := f.taps
	f.taps = mat.New(taps, was.Cols+rows)
	mat.Copy(f.taps, was)
	for c := range rows {
		for j, v := range mat.Row(m, c) {
			f.taps.Data[j*f.taps.Stride+was.Cols+c] = v
		}
	}
}

// stacked returns matrices of one width, one below the other.
func stacked(list []blas32.General) blas32.General {
	rows := 0
	for _, m := range list {
		rows += m.Rows
	}
	out, at := mat.New(rows, list[0].Cols), 0
	for _, m := range list {
		mat.Copy(mat.Rows(out, at, at+m.Rows), m)
		at += m.Rows
	}
	return out
}

// finish makes the block, but for its identity.
func (f *gatedFrame) finish(b *gated, norm []float32, out blas32.General, betaAt int, g gates) (err error) {
	c := &f.rec
	values := c.Heads * c.ValueDim
	b.norm = f.pack.Vector("Norm", norm, c.ValueDim, false)
	b.out = f.pack.Linear("Out", out, nil, f.dim, values)
	if f.pack.Err != nil {
		return f.pack.Err
	}
	if check.Product(maxFloats, f.taps.Rows, f.taps.Cols) < 0 {
		return check.Errorf(ErrConfig, "delta: a convolution of %d taps and %d channels is too large", f.taps.Rows, f.taps.Cols)
	}
	if b.rec, err = New(*c); err != nil {
		return err
	}
	in := stacked(f.parts)
	b.in, b.wide, b.taps, b.gates, b.double, b.betaAt = dense.NewLinear(f.format, in, nil), in.Rows, f.taps, g, f.double, betaAt
	b.eps, b.decayDim = float32(f.eps), c.Heads
	if c.Decay == KeyDecay {
		b.decayDim *= c.KeyDim
	}
	b.dim, b.workers, b.scratch, b.body = f.dim, c.Workers, ownOr(f.scratch), b
	return nil
}

// identify gives the block its kind, with a fingerprint of its weights, and counts their
// memory.
func (b *gated) identify(name string, numbers []int64, vectors ...[]float32) {
	name = fmt.Sprintf("%s block of width %d with a %s", name, b.dim, b.rec.kind.Name)
	f := state.NewFingerprint(name, append(slices.Clone(numbers), state.Bool(b.double), int64(b.rec.kind.Hash), int64(b.in.Fingerprint()), int64(b.out.Fingerprint()))...)
	f.Matrices(b.taps)
	f.Floats(b.norm, []float32{b.eps})
	f.Floats(vectors...)
	b.window = (b.taps.Rows - 1) * b.taps.Cols
	work := int64(b.dim)*int64(b.wide+b.rec.cfg.Heads*b.rec.cfg.ValueDim) + int64(b.taps.Rows*b.taps.Cols) + b.rec.kind.Work
	b.kind = newKind(name, b.window+b.rec.kind.Size, f, work)
	b.weights = int64(b.in.Bytes()) + int64(b.out.Bytes()) + 4*int64(len(b.taps.Data)+len(b.norm))
	for _, v := range vectors {
		b.weights += 4 * int64(len(v))
	}
}
