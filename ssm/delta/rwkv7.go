package delta

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state"
)

// RWKV7Config fixes an RWKV7 block; the shapes of the weights tell the rest.
type RWKV7Config struct {
	// HeadDim is N, the channels of a head; 0 is 64.
	HeadDim int
	// First says that the block is of a model's first layer, whose values the others read
	// (BlockCall.First): it writes them where the call asks, and has no V0, V1 and V2, or
	// does not use them.
	First bool
	// NormEps is that of the group norm; 0 is 64e-5, as the official code has it whatever
	// HeadDim is. Flash linear attention has HeadDim times the eps of the other norms, the
	// same for heads of 64.
	NormEps float64
	// KeyEps, where it is not 0, divides a key by sqrt(sum k^2 + KeyEps), as flash linear
	// attention does with 1e-6, in place of max(|k|, 1e-12).
	KeyEps float64
	// Format is how the projections' weights are stored; 0 is Float32.
	Format asm.Format
	// Scratch is working memory to share with other blocks; nil is the block's own.
	Scratch *Scratch
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// RWKV7Weights are the weights of an RWKV7 block as the official files have them, under
// blocks.i.att. Matrices of low rank are multiplied from the right, x W1 W2: other
// layouts (rwkv.cpp, flash linear attention) have them transposed.
type RWKV7Weights struct {
	// XR and so on are x_r, x_w, x_k, x_v, x_a, x_g [Dim]: how much of the last token each
	// projection sees.
	XR, XW, XK, XV, XA, XG []float32
	// W0 is w0 [Dim], W1 [Dim, r] and W2 [r, Dim]: the decay. A0, A1, A2 are of the rate at
	// which a key is learnt, V0, V1, V2 of the first layer's share in the values, G1, G2 of
	// the gate. Ranks differ.
	W0, A0, V0                     []float32
	W1, W2, A1, A2, V1, V2, G1, G2 blas32.General
	// KK and KA are k_k and k_a [Dim], RK is r_k [Dim], head by head.
	KK, KA, RK []float32
	// Receptance, Key, Value and Out are [Dim, Dim].
	Receptance, Key, Value, Out blas32.General
	// Norm and NormBias are ln_x [Dim].
	Norm, NormBias []float32
}

// RWKV7 is the time mixing of RWKV-7 (Peng et al. 2025, arXiv 2503.14456), between a
// layer's norm ln1 and its residual sum. With d_t = x_{t-1} - x_t, x_c = x + d mu_c for
// each c of r, w, k, v, a, g, and first the values of the first layer:
//
//	r, k, v = receptance(x_r), key(x_k), value(x_v)
//	g = -exp(-1/2) sigmoid(w0 + tanh(x_w W1) W2);  eta = sigmoid(a0 + x_a A1 A2)
//	v = v + (first - v) sigmoid(v0 + x_v V1 V2), but in the first layer
//	kappa = k k_k / |k k_k| of each head;  k = k (1 + (eta - 1) k_a)
//	S = Diag(exp g) S - (kappa eta) (S^T kappa)^T + k v^T;  y = S^T r
//	y = groupnorm(y) + (sum over the head of r k r_k) v
//	dst = output(y (sigmoid(x_g G1) G2))
//
// The state is x of the last token and the heads' matrices. It is immutable and safe for
// concurrent use.
type RWKV7 struct {
	block
	cfg                            RWKV7Config
	mix                            [6][]float32 // of r, w, k, v, a, g
	receptance, key, value, output *dense.Linear
	decay, rate, share, gate       lowRank
	kk, ka, rk                     []float32
	normWeight, normBias           []float32
	rec                            *Recurrence
}

// lowRank is x W1 W2 + bias.
type lowRank struct{ down, up *dense.Linear }

func (l *lowRank) rank() int {
	if l.down == nil {
		return 0
	}
	_, r := l.down.Dims()
	return r
}

// checkRank sets an error unless n can be the rank of a matrix of low rank.
func checkRank(p *dense.Packer, name, what string, n int) {
	if p.Err == nil && (n <= 0 || n > maxSize) {
		p.Err = check.Errorf(ErrConfig, "delta: %s has %d %s, want 1 to %d", name, n, what, maxSize)
	}
}

// transposed returns a copy of m, turned around.
func transposed(m blas32.General) blas32.General {
	t := mat.New(m.Cols, m.Rows)
	for i := range m.Rows {
		for j, v := range mat.Row(m, i) {
			t.Data[j*t.Stride+i] = v
		}
	}
	return t
}

// NewRWKV7 returns a block, or an error that matches ErrConfig. It keeps none of the
// weights' memory.
func NewRWKV7(cfg RWKV7Config, w RWKV7Weights) (*RWKV7, error) {
	if cfg.HeadDim == 0 {
		cfg.HeadDim = 64
	}
	dim := w.Out.Rows
	switch {
	case dim <= 0 || dim > maxSize:
		return nil, check.Errorf(ErrConfig, "delta: Out has %d rows, want Dim, 1 to %d", dim, maxSize)
	case cfg.HeadDim < 0 || dim%cfg.HeadDim != 0:
		return nil, check.Errorf(ErrConfig, "delta: HeadDim is %d, want a divisor of Dim = %d", cfg.HeadDim, dim)
	case cfg.Format > asm.Float16:
		return nil, check.Errorf(ErrConfig, "delta: Format is %d, want %d to %d", cfg.Format, asm.Float32, asm.Float16)
	}
	if cfg.NormEps == 0 {
		cfg.NormEps = 64e-5
	}
	if !(cfg.NormEps > 0) || math.IsInf(cfg.NormEps, 0) || !(cfg.KeyEps >= 0) || math.IsInf(cfg.KeyEps, 0) {
		return nil, check.Errorf(ErrConfig, "delta: NormEps is %v and KeyEps %v, want finite numbers, above 0 and 0 or more", cfg.NormEps, cfg.KeyEps)
	}
	rec, err := New(Config{
		Heads: dim / cfg.HeadDim, KeyDim: cfg.HeadDim, ValueDim: cfg.HeadDim, Decay: KeyDecay, Erase: ErasePair, Scale: 1, Workers: cfg.Workers,
	})
	if err != nil {
		return nil, err
	}
	p := dense.Packer{Package: "delta", Format: cfg.Format}
	b := &RWKV7{cfg: cfg, rec: rec}
	for i, x := range [...]struct {
		name string
		v    []float32
	}{{"XR", w.XR}, {"XW", w.XW}, {"XK", w.XK}, {"XV", w.XV}, {"XA", w.XA}, {"XG", w.XG}} {
		b.mix[i] = p.Vector(x.name, x.v, dim, false)
	}
	b.receptance = p.Linear("Receptance", w.Receptance, nil, dim, dim)
	b.key = p.Linear("Key", w.Key, nil, dim, dim)
	b.value = p.Linear("Value", w.Value, nil, dim, dim)
	b.output = p.Linear("Out", w.Out, nil, dim, dim)
	low := func(name string, w0 []float32, w1, w2 blas32.General, biased bool) (l lowRank) {
		checkRank(&p, name+"1", "columns", w1.Cols)
		p.Matrix(name+"1", w1, dim, w1.Cols)
		p.Matrix(name+"2", w2, w1.Cols, dim)
		bias := p.Vector(name+"0", w0, dim, !biased)
		if p.Err != nil {
			return l
		}
		if w0 == nil {
			bias = nil
		}
		return lowRank{dense.NewLinear(cfg.Format, transposed(w1), nil), dense.NewLinear(cfg.Format, transposed(w2), bias)}
	}
	b.decay = low("W", w.W0, w.W1, w.W2, true)
	b.rate = low("A", w.A0, w.A1, w.A2, true)
	if !cfg.First {
		b.share = low("V", w.V0, w.V1, w.V2, true)
	}
	b.gate = low("G", nil, w.G1, w.G2, false)
	b.kk, b.ka, b.rk = p.Vector("KK", w.KK, dim, false), p.Vector("KA", w.KA, dim, false), p.Vector("RK", w.RK, dim, false)
	b.normWeight, b.normBias = p.Vector("Norm", w.Norm, dim, false), p.Vector("NormBias", w.NormBias, dim, false)
	if p.Err != nil {
		return nil, p.Err
	}
	b.block = block{dim: dim, window: dim, workers: cfg.Workers, body: b, scratch: ownOr(cfg.Scratch), first: firstRead}
	if cfg.First {
		b.first = firstWritten
	}
	b.identify()
	return b, nil
}

// identify makes the block's kind, and counts its weights' memory.
func (b *RWKV7) identify() {
	name := fmt.Sprintf("RWKV7 block of width %d with heads of %d", b.dim, b.cfg.HeadDim)
	f := state.NewFingerprint(name, state.Bool(b.cfg.First), int64(math.Float64bits(b.cfg.NormEps)), int64(math.Float64bits(b.cfg.KeyEps)))
	work := b.rec.kind.Work
	for _, l := range [...]*dense.Linear{b.receptance, b.key, b.value, b.output, b.decay.down, b.decay.up, b.rate.down, b.rate.up, b.share.down, b.share.up, b.gate.down, b.gate.up} {
		if l != nil {
			f.Add(l.Fingerprint())
			b.weights += int64(l.Bytes())
			in, out := l.Dims()
			work += int64(in) * int64(out)
		}
	}
	vectors := append(append([][]float32{}, b.mix[:]...), b.kk, b.ka, b.rk, b.normWeight, b.normBias)
	f.Floats(vectors...)
	for _, v := range vectors {
		b.weights += 4 * int64(len(v))
	}
	b.kind = newKind(name, b.dim+b.rec.kind.Size, f, work)
}

// ReadShift sets x [1, Dim] to the last token's input in a state, behind the layer's norm.
// Errors match ErrShape or ErrState.
func (b *RWKV7) ReadShift(x blas32.General, st *State) error {
	return b.readShift(x, st)
}

// WriteShift makes x [1, Dim] the last token's input in a state. Errors match ErrShape or
// ErrState.
func (b *RWKV7) WriteShift(st *State, x blas32.General) error { return b.writeShift(st, x) }

// ReadStates sets s [Heads HeadDim, HeadDim] to the matrices in a state, a row for each key
// channel: the transpose of the official one. Errors match ErrShape or ErrState.
func (b *RWKV7) ReadStates(s blas32.General, st *State) error {
	if err := b.checkStates(s, st); err != nil {
		return err
	}
	b.rec.readStates(s, st.fixed.Values[b.dim:])
	return nil
}

// WriteStates makes s [Heads HeadDim, HeadDim] the matrices in a state; Len stays. Errors
// match ErrShape or ErrState.
func (b *RWKV7) WriteStates(st *State, s blas32.General) error {
	if err := b.checkStates(s, st); err != nil {
		return err
	}
	b.rec.writeStates(st.fixed.Values[b.dim:], s)
	st.fixed.Written()
	return nil
}

func (b *RWKV7) checkStates(s blas32.General, st *State) error {
	return b.kind.acceptRead(st, "s", s, b.dim, b.cfg.HeadDim, "HeadDim")
}

// readShift and writeShift are of blocks whose state begins with the last token's input.
func (b *block) readShift(x blas32.General, st *State) error {
	if err := b.kind.acceptRead(st, "x", x, 1, b.dim, "Dim"); err != nil {
		return err
	}
	copy(mat.Row(x, 0), st.fixed.Values)
	return nil
}

func (b *block) writeShift(st *State, x blas32.General) error {
	if err := b.kind.acceptRead(st, "x", x, 1, b.dim, "Dim"); err != nil {
		return err
	}
	copy(st.fixed.Values[:b.dim], mat.Row(x, 0))
	st.fixed.Written()
	return nil
}
