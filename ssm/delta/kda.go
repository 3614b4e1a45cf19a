package delta

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
)

// KDAConfig fixes a KDA block.
type KDAConfig struct {
	// Heads is how many value heads there are, KeyHeads how many heads of keys and of
	// queries (num_heads), a divisor; 0 is Heads.
	Heads, KeyHeads int
	// KeyDim and ValueDim are the channels of a head (head_dim); ValueDim 0 is KeyDim.
	KeyDim, ValueDim int
	// LowerBound, below 0, bounds the logarithm of the decay (gate_lower_bound): Kimi K3's
	// is -5. It is part of what a model was trained with. 0 is none.
	LowerBound float32
	// NegativeEigen doubles beta, so that it goes to 2 (allow_neg_eigval).
	NegativeEigen bool
	// NormEps is that of the norm in front of the last projection (rms_norm_eps); 0 is
	// 1e-5.
	NormEps float64
	// Format is how the projections' weights are stored; 0 is Float32.
	Format asm.Format
	// Scratch is working memory to share with other blocks; nil is the block's own.
	Scratch *Scratch
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// KDAWeights are the weights of a KDA block, as checkpoints of Kimi Linear have them.
// Hk are the key heads, H the value heads, K and V their channels.
type KDAWeights struct {
	// Q, K and V are q_proj.weight and k_proj.weight [Hk K, Dim], v_proj.weight [H V, Dim].
	Q, K, V blas32.General
	// QConv, KConv and VConv are q_conv1d.weight and so on, [channels, taps].
	QConv, KConv, VConv blas32.General
	// FA is f_a_proj.weight [r, Dim] and FB f_b_proj.weight [H K, r]: the decay.
	FA, FB blas32.General
	// DtBias is dt_bias [H K], ALog A_log [H]. A block with a LowerBound may have no ALog.
	DtBias, ALog []float32
	// B is b_proj.weight [H, Dim], of beta.
	B blas32.General
	// GA is g_a_proj.weight [r, Dim], GB g_b_proj.weight [H V, r] and GBias its bias [H V]
	// or nil: the gate of the output. G is g_proj.weight [H V, Dim] in place of them.
	GA, GB blas32.General
	GBias  []float32
	G      blas32.General
	// Norm is o_norm.weight [V], Out o_proj.weight [Dim, H V].
	Norm []float32
	Out  blas32.General
}

// KDA is the block of Kimi Delta Attention (Kimi Linear, 2025, arXiv 2510.26692), with a
// decay for each key channel:
//
//	q, k, v = silu(conv(q(x), k(x), v(x)));  q, k = q/|q|, k/|k| of each head
//	g = -exp(A_log) softplus(f_b(f_a(x)) + dt_bias), or with a LowerBound
//	g = LowerBound sigmoid(exp(A_log) (f_b(f_a(x)) + dt_bias));  beta = sigmoid(b(x))
//	S = Diag(exp g) S;  S = S + k (beta (v - S^T k))^T;  o = S^T q / sqrt(KeyDim)
//	dst = out(rmsnorm(o of each head) norm sigmoid(g_b(g_a(x))))
//
// It is immutable and safe for concurrent use.
type KDA struct{ gated }

// kdaGates are KDA's.
type kdaGates struct {
	f, g   *dense.Linear // of low rank: their second halves, f's with dt_bias; g may be nil
	rate   []float32     // [H K]: -exp(A_log), or exp(A_log) with a bound, nil for 1
	bound  float32
	fAt, n int // where f's input begins, and how wide it is
	gAt, m int
}

// NewKDA returns a block, or an error that matches ErrConfig. It keeps none of the
// weights' memory.
func NewKDA(cfg KDAConfig, w KDAWeights) (*KDA, error) {
	if cfg.ValueDim == 0 {
		cfg.ValueDim = cfg.KeyDim
	}
	f := gatedFrame{
		dim: w.Out.Rows, double: cfg.NegativeEigen, eps: cfg.NormEps, defaultEps: 1e-5, format: cfg.Format, scratch: cfg.Scratch,
		rec: Config{Heads: cfg.Heads, KeyHeads: cfg.KeyHeads, KeyDim: cfg.KeyDim, ValueDim: cfg.ValueDim, Decay: KeyDecay, Erase: EraseKey, Normalize: true, Workers: cfg.Workers},
	}
	if err := f.begin(); err != nil {
		return nil, err
	}
	if !(cfg.LowerBound <= 0) || math.IsInf(float64(cfg.LowerBound), 0) {
		return nil, check.Errorf(ErrConfig, "delta: LowerBound is %v, want a finite number, 0 or less", cfg.LowerBound)
	}
	c := &f.rec
	keys, values, channels := c.KeyHeads*c.KeyDim, c.Heads*c.ValueDim, c.Heads*c.KeyDim
	f.project("Q", w.Q, keys)
	f.project("K", w.K, keys)
	f.project("V", w.V, values)
	f.convolve("QConv", w.QConv, keys)
	f.convolve("KConv", w.KConv, keys)
	f.convolve("VConv", w.VConv, values)
	f.project("B", w.B, c.Heads)
	g := &kdaGates{bound: cfg.LowerBound, fAt: 2*keys + values + c.Heads, n: w.FA.Rows}
	checkRank(&f.pack, "FA", "rows", w.FA.Rows)
	f.project("FA", w.FA, w.FA.Rows)
	g.f = f.pack.Linear("FB", w.FB, w.DtBias, channels, w.FA.Rows)
	if f.pack.Err == nil && w.DtBias == nil {
		f.pack.Err = check.Errorf(ErrConfig, "delta: DtBias is nil, want Heads*KeyDim = %d elements", channels)
	}
	g.gAt = g.fAt + g.n
	if full := mat.Given(w.G); full && (mat.Given(w.GA) || mat.Given(w.GB) || w.GBias != nil) {
		return nil, check.Errorf(ErrConfig, "delta: G is given together with GA, GB or GBias")
	} else if full {
		f.project("G", w.G, values)
		g.m = values
	} else {
		checkRank(&f.pack, "GA", "rows", w.GA.Rows)
		f.project("GA", w.GA, w.GA.Rows)
		g.g, g.m = f.pack.Linear("GB", w.GB, w.GBias, values, w.GA.Rows), w.GA.Rows
	}
	alog := f.pack.Vector("ALog", w.ALog, c.Heads, cfg.LowerBound != 0)
	b := new(KDA)
	if err := f.finish(&b.gated, w.Norm, w.Out, 2*keys+values, g); err != nil {
		return nil, err
	}
	rates := negativeExp(alog)
	for _, r := range rates {
		if cfg.LowerBound != 0 {
			r = -r
		}
		for range c.KeyDim {
			g.rate = append(g.rate, r)
		}
	}
	numbers := []int64{int64(g.f.Fingerprint())}
	if g.g != nil {
		numbers = append(numbers, int64(g.g.Fingerprint()))
	}
	b.identify("KDA", numbers, alog, []float32{cfg.LowerBound})
	b.weights += int64(g.f.Bytes()) + 4*int64(len(g.rate))
	if g.g != nil {
		b.weights += int64(g.g.Bytes())
	}
	return b, nil
}

func (g *kdaGates) decays(dst, u blas32.General) {
	g.f.Forward(dst, mat.Columns(u, g.fAt, g.n))
	for t := range dst.Rows {
		row := mat.Row(dst, t)
		if g.bound == 0 {
			asm.Softplus(row, row)
			asm.Mul(row, row, g.rate)
			continue
		}
		if len(g.rate) > 0 {
			asm.Mul(row, row, g.rate)
		}
		asm.Sigmoid(row, row)
		asm.Scale(row, g.bound, row)
	}
}

func (g *kdaGates) gate(_ *blockWork, dst, u blas32.General) {
	from := mat.Columns(u, g.gAt, g.m)
	if g.g != nil {
		g.g.Forward(dst, from)
		from = dst
	}
	for t := range dst.Rows {
		asm.Sigmoid(mat.Row(dst, t), mat.Row(from, t))
	}
}
