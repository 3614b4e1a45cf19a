package ssm

import (
	"fmt"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
)

// SSDConfig fixes an SSD.
type SSDConfig struct {
	// Heads is H, HeadDim is P, the channels of a head, States is N.
	Heads, HeadDim, States int
	// Groups is G: head h reads B and C of group h / (H/G). 0 is 1.
	Groups int
	// Softplus passes dt + DtBias through log(1 + exp).
	Softplus bool
	// DtMin and DtMax limit dt after the softplus; a DtMax of 0 is no limit.
	DtMin, DtMax float32
	// Recurrent runs token by token whatever the length, so that any split of a
	// sequence gives the same bits. Otherwise chunks are computed in the form that is
	// fastest, which rounds otherwise.
	Recurrent bool
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// SSDWeights are the weights of an SSD.
type SSDWeights struct {
	// A [H] are the decay rates, usually -exp(A_log): negative, for a state that
	// does not grow. nil is for calls that give Decay.
	A []float32
	// D is the skip, [H] or [H P], and DtBias [H] is added to dt; nil is 0.
	D, DtBias []float32
}

// SSD is the state-space duality of Mamba-2 (Dao and Gu 2024, arXiv 2405.21060),
// for each head with a state S [N, P]:
//
//	dt = limits(softplus(dt + DtBias))
//	S = exp(dt A) S + dt B x^T
//	dst = S^T C + D x,  times silu(z)
//
// Sequences are cut into chunks of 64 tokens at absolute positions, and each head's
// part of one computed in the form that is fastest for it. Where a chunk's decay is
// mild it is kept apart from the state; where it is not, long pieces are computed by
// matrix products (section 6): within the chunk as attention with a decaying mask,
// across chunks through the state. Short ones, a token of decoding among them, go by
// the recurrence. All agree to about 1e-6 of the largest value; the same split of a
// sequence gives the same bits.
//
// It costs 4 to 6 flop for each token, channel and state. An SSD is immutable and
// safe for concurrent use.
type SSD struct {
	cfg     SSDConfig
	kind    kind
	a, bias []float32 // [H]: A and DtBias, or nil
	skip    []float32 // [H P]: D, or nil
	scratch scratch.List[ssdWork]
}

// NewSSD returns an SSD, or an error that matches ErrConfig. It keeps none of the
// weights' memory.
func NewSSD(cfg SSDConfig, w SSDWeights) (*SSD, error) {
	if cfg.Groups == 0 {
		cfg.Groups = 1
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	h, p, n := cfg.Heads, cfg.HeadDim, cfg.States
	if err := checkVectors(vectorWeight{"A", w.A, h, "Heads", true}, vectorWeight{"DtBias", w.DtBias, h, "Heads", true}); err != nil {
		return nil, err
	}
	if w.D != nil && len(w.D) != h && len(w.D) != h*p {
		return nil, check.Errorf(ErrConfig, "ssm: D has %d elements, want Heads = %d or Heads*HeadDim = %d", len(w.D), h, h*p)
	}
	if err := check.Finite(ErrConfig, "ssm", "A", w.A); err != nil {
		return nil, err
	}
	op := &SSD{cfg: cfg, a: cloned(w.A), bias: cloned(w.DtBias)}
	for _, v := range w.D {
		for range h * p / len(w.D) {
			op.skip = append(op.skip, v)
		}
	}
	name := fmt.Sprintf("SSD of %d heads of %d channels in %d groups with %d states", h, p, cfg.Groups, n)
	f := state.NewFingerprint(name, state.Bool(cfg.Softplus))
	f.Floats(op.a, op.bias, op.skip, []float32{cfg.DtMin, cfg.DtMax})
	size := h * p * n
	op.kind = newKind(name, size, f, 3*int64(size), h)
	return op, nil
}

func (cfg *SSDConfig) check() error {
	h, p, n, g := cfg.Heads, cfg.HeadDim, cfg.States, cfg.Groups
	if err := checkSizes(size{"Heads", h}, size{"HeadDim", p}, size{"States", n}, size{"Groups", g}); err != nil {
		return err
	}
	if err := checkGroups(g, h, "Heads"); err != nil {
		return err
	}
	if check.Product(maxFloats, h, p, n) < 0 {
		return check.Errorf(ErrConfig, "ssm: %d states of %d x %d channels are too many", n, h, p)
	}
	if err := checkDt(cfg.DtMin, cfg.DtMax); err != nil {
		return err
	}
	return check.Workers(ErrConfig, "ssm", cfg.Workers)
}

// Identity names the SSD, and says how many steps dt a token has: the heads.
func (op *SSD) Identity() Identity { return op.kind.identity() }

// Rates returns a copy of A [H, 1], without rows where the weights have none.
func (op *SSD) Rates() blas32.General { return mat.Of(cloned(op.a), len(op.a), 1) }

// Bytes returns the memory of the weights.
func (op *SSD) Bytes() int64 { return floatBytes(len(op.a) + len(op.bias) + len(op.skip)) }

// ScratchBytes returns the working memory that a call of one sequence of that many
// tokens takes at most, besides its arguments; it stops growing with them.
func (op *SSD) ScratchBytes(tokens int) int64 {
	return scratchBytes(int64(op.kind.Size) + op.workFloats(tokens, parallel.Workers(op.cfg.Workers)))
}
