package delta

import (
	"fmt"
	"math"
	"slices"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
)

// Decay is what the state decays by in front of every token. Decays are given as
// logarithms g, 0 or less: the state keeps exp(g) of itself.
type Decay uint8

const (
	// NoDecay keeps all of the state: linear attention, DeltaNet.
	NoDecay Decay = iota
	// ConstantDecay is one number for each head, Config.LogDecay: RetNet, Lightning.
	ConstantDecay
	// HeadDecay is a number for each token and head: Mamba-2, Gated DeltaNet, Comba.
	HeadDecay
	// KeyDecay is a number for each token, head and key channel: GLA, KDA, RWKV-7.
	KeyDecay
)

// Erase is what a token takes out of the state before it writes to it.
type Erase uint8

const (
	// NoErase takes nothing out: S += k (beta v)^T.
	NoErase Erase = iota
	// EraseKey takes out what the state has under the key, as far as beta says:
	// S += k (beta (v - S^T k))^T. DeltaNet, Gated DeltaNet, KDA.
	EraseKey
	// EraseGated has a gate e on each key channel and one w on each value channel in
	// place of beta: S += k (w*v - S^T (e*k))^T. GDN-2.
	EraseGated
	// EraseVector reads the state with a vector p of its own:
	// S += k (beta (v - S^T p))^T. Comba.
	EraseVector
	// ErasePair reads with a vector a and writes what it has read with a vector b, of
	// the state in front of the decay, P: S += b (P^T a)^T + k v^T. DPLR, RWKV-7.
	ErasePair
)

// Config fixes a Recurrence.
type Config struct {
	// Heads is how many states there are, each a matrix of KeyDim x ValueDim: the heads
	// of the values.
	Heads int
	// KeyHeads is how many heads the keys have, a divisor of Heads: state h is written
	// with key head h / (Heads/KeyHeads). 0 is Heads.
	KeyHeads int
	// QueryHeads is how many heads the queries have. Where it is a divisor of Heads, state
	// h is read with query head h / (Heads/QueryHeads); where it is a multiple of Heads,
	// query head j reads state j / (QueryHeads/Heads), and there are QueryHeads outputs.
	// 0 is KeyHeads.
	QueryHeads int
	// KeyDim is K and ValueDim V, the channels of a key or query and of a value.
	KeyDim, ValueDim int
	// Decay is what the state decays by, 0 NoDecay, and LogDecay [Heads] the numbers of
	// ConstantDecay: RetNetDecay, LightningDecay.
	Decay    Decay
	LogDecay []float32
	// Erase is what a token takes out of the state, 0 NoErase. EraseFirst reads it in front of the
	// decay, as ErasePair always does.
	Erase      Erase
	EraseFirst bool
	// Normalize divides queries and keys by their lengths: x / sqrt(sum x^2 + NormEps).
	// NormEps 0 is 1e-6.
	Normalize bool
	NormEps   float64
	// Scale multiplies the outputs; 0 is 1/sqrt(KeyDim).
	Scale float32
	// Recurrent runs token by token whatever the length, so that any split of a sequence
	// gives the same bits. Otherwise whole pieces of 32 tokens may be computed by matrix
	// products, which round otherwise.
	Recurrent bool
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// Recurrence is a recurrence whose state is a matrix S [K, V] for each head: linear
// attention, RetNet, gated linear attention, DeltaNet, Gated DeltaNet, KDA, RWKV-7's core
// and their kin, as Config says. For each token and head
//
//	P = S
//	S = Diag(exp g) P
//	S = S + what Erase says
//	dst = Scale S^T q
//
// Sequences are cut into pieces of 32 tokens at absolute positions. Whole ones are computed,
// where that is faster, by matrix products: within the piece as attention with a mask of
// decays, whose writes are the solution of a triangular system (Yang et al. 2024, arXiv
// 2406.06484, without the inverse), from piece to piece through the state. Others go by the
// recurrence: a token of decoding, pairs, and pieces in which KeyDecay leaves less than 2^-90
// in some channel. Both agree to about 1e-6 of the largest value; the same split of a
// sequence gives the same bits.
//
// It costs 7 K V flop for each token and head in the recurrence, and 6 K V + 96 K + 64 V
// by pieces. A Recurrence is immutable and safe for concurrent use.
type Recurrence struct {
	cfg     Config
	kind    kind
	outs    int // heads of the output
	each    int // queries that read one state
	scratch scratch.List[work]
}

// New returns a Recurrence, or an error that matches ErrConfig. It keeps none of the
// Config's memory.
func New(cfg Config) (*Recurrence, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	cfg.LogDecay = slices.Clone(cfg.LogDecay)
	h, k, v := cfg.Heads, cfg.KeyDim, cfg.ValueDim
	op := &Recurrence{cfg: cfg, outs: max(h, cfg.QueryHeads), each: max(1, cfg.QueryHeads/h)}
	name := fmt.Sprintf("recurrence of %d states of %d x %d, %d key heads and %d query heads", h, k, v, cfg.KeyHeads, cfg.QueryHeads)
	f := state.NewFingerprint(name, int64(cfg.Decay), int64(cfg.Erase), state.Bool(cfg.EraseFirst), state.Bool(cfg.Normalize), int64(math.Float64bits(cfg.NormEps)))
	f.Floats(cfg.LogDecay, []float32{cfg.Scale})
	op.kind = newKind(name, h*k*v, f, 4*int64(h*k*v))
	return op, nil
}

// complete sets defaults and checks the Config.
func (cfg *Config) complete() error {
	if cfg.KeyHeads == 0 {
		cfg.KeyHeads = cfg.Heads
	}
	if cfg.QueryHeads == 0 {
		cfg.QueryHeads = cfg.KeyHeads
	}
	for _, s := range [...]struct {
		name string
		n    int
	}{{"Heads", cfg.Heads}, {"KeyHeads", cfg.KeyHeads}, {"QueryHeads", cfg.QueryHeads}, {"KeyDim", cfg.KeyDim}, {"ValueDim", cfg.ValueDim}} {
		if s.n <= 0 || s.n > maxSize {
			return check.Errorf(ErrConfig, "delta: %s is %d, want 1 to %d", s.name, s.n, maxSize)
		}
	}
	h, q := cfg.Heads, cfg.QueryHeads
	switch {
	case h%cfg.KeyHeads != 0:
		return check.Errorf(ErrConfig, "delta: KeyHeads is %d, want a divisor of Heads = %d", cfg.KeyHeads, h)
	case h%q != 0 && q%h != 0:
		return check.Errorf(ErrConfig, "delta: QueryHeads is %d, want a divisor or a multiple of Heads = %d", q, h)
	case check.Product(maxFloats, h, cfg.KeyDim, cfg.ValueDim) < 0 || check.Product(maxFloats, q, max(cfg.KeyDim, cfg.ValueDim)) < 0:
		return check.Errorf(ErrConfig, "delta: %d states of %d x %d and %d query heads are too many", h, cfg.KeyDim, cfg.ValueDim, q)
	case cfg.Decay > KeyDecay:
		return check.Errorf(ErrConfig, "delta: Decay is %d, want %d to %d", cfg.Decay, NoDecay, KeyDecay)
	case cfg.Erase > ErasePair:
		return check.Errorf(ErrConfig, "delta: Erase is %d, want %d to %d", cfg.Erase, NoErase, ErasePair)
	case cfg.Decay != ConstantDecay && cfg.LogDecay != nil:
		return check.Errorf(ErrConfig, "delta: LogDecay is given, but Decay is not ConstantDecay")
	}
	if cfg.Decay == ConstantDecay {
		if err := check.Vector(ErrConfig, "delta", "LogDecay", cfg.LogDecay, h, "Heads"); err != nil {
			return err
		}
		for i, g := range cfg.LogDecay {
			if !(g <= 0) || math.IsInf(float64(g), 0) {
				return check.Errorf(ErrConfig, "delta: LogDecay[%d] is %v, want a finite number, 0 or less", i, g)
			}
		}
	}
	if cfg.NormEps == 0 {
		cfg.NormEps = 1e-6
	}
	if !(cfg.NormEps > 0) || math.IsInf(cfg.NormEps, 0) {
		return check.Errorf(ErrConfig, "delta: NormEps is %v, want a finite number above 0", cfg.NormEps)
	}
	if cfg.Scale == 0 {
		cfg.Scale = float32(1 / math.Sqrt(float64(cfg.KeyDim)))
	}
	if cfg.Scale-cfg.Scale != 0 {
		return check.Errorf(ErrConfig, "delta: Scale is %v, want a finite number", cfg.Scale)
	}
	cfg.EraseFirst = cfg.EraseFirst && cfg.Erase != NoErase || cfg.Erase == ErasePair
	return check.Workers(ErrConfig, "delta", cfg.Workers)
}

// RetNetDecay returns the LogDecay of RetNet (Sun et al. 2023, arXiv 2307.08621) for a
// number of heads: ln(1 - 2^(-5-h)).
func RetNetDecay(heads int) []float32 {
	g := make([]float32, max(heads, 0))
	for h := range g {
		g[h] = float32(math.Log1p(-math.Exp2(-5 - float64(h))))
	}
	return g
}

// LightningDecay returns the LogDecay of Lightning attention as MiniMax-01 (2025, arXiv
// 2501.08313) has it, for a number of heads in layer layer (from 0) of layers:
// -(2^(-8/heads))^(h+1) (1 - layer/(layers-1+1e-5) + 1e-5). Its Scale is 1.
func LightningDecay(heads, layer, layers int) []float32 {
	g := make([]float32, max(heads, 0))
	slow := 1 - float64(layer)/(float64(layers-1)+1e-5) + 1e-5
	for h := range g {
		g[h] = float32(-math.Exp2(-8/float64(heads)*float64(h+1)) * slow)
	}
	return g
}

// Bytes returns the memory of the operator beside its working memory.
func (op *Recurrence) Bytes() int64 { return 4 * int64(len(op.cfg.LogDecay)) }

// ScratchBytes returns the working memory that a call of one sequence of that many
// tokens takes at most, besides its arguments; it stops growing with them.
func (op *Recurrence) ScratchBytes(tokens int) int64 {
	return scratchBytes(op.workFloats(tokens, parallel.Workers(op.cfg.Workers)) + int64(op.kind.Size))
}

// scratchBytes is the memory of n float32 in working memory, and of the lists beside
// them.
func scratchBytes(n int64) int64 {
	const rest = 16 << 10
	return 4*n + rest
}
