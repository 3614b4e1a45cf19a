package ssm

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// GatedNormConfig fixes a GatedNorm.
type GatedNormConfig struct {
	// GroupSize is how many channels are normalised together, 0 for all.
	GroupSize int
	// NormBeforeGate gates what is normalised, instead of normalising what is gated.
	NormBeforeGate bool
	// Eps is added to the mean square; 0 is 1e-5.
	Eps float64
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// GatedNormWeights are the weights of a GatedNorm.
type GatedNormWeights struct {
	// Weight [D] multiplies the normalised channels: a checkpoint's norm.weight.
	Weight []float32
}

// GatedNorm is the RMSNorm with a gate of Mamba-2 (Dao and Gu 2024, arXiv 2405.21060):
//
//	dst = rms(x silu(z)) weight, or, with NormBeforeGate, rms(x) weight silu(z),
//
// rms(v) = v / sqrt(mean(v^2) + Eps), the mean over each group of channels. It is
// immutable and safe for concurrent use.
type GatedNorm struct {
	cfg     GatedNormConfig
	weight  []float32 // [D]
	scratch scratch.List[normWork]
}

// NewGatedNorm returns a norm, or an error that matches ErrConfig. It keeps none of the
// weights' memory.
func NewGatedNorm(cfg GatedNormConfig, w GatedNormWeights) (*GatedNorm, error) {
	channels := len(w.Weight)
	if channels == 0 {
		return nil, check.Errorf(ErrConfig, "ssm: Weight is empty, want an element for each channel")
	}
	if cfg.GroupSize == 0 {
		cfg.GroupSize = channels
	}
	if cfg.Eps == 0 {
		cfg.Eps = 1e-5
	}
	if cfg.GroupSize < 0 || channels%cfg.GroupSize != 0 {
		return nil, check.Errorf(ErrConfig, "ssm: GroupSize is %d, want a divisor of the %d channels", cfg.GroupSize, channels)
	}
	if err := checkEps(cfg.Eps); err != nil {
		return nil, err
	}
	if err := check.Workers(ErrConfig, "ssm", cfg.Workers); err != nil {
		return nil, err
	}
	return &GatedNorm{cfg: cfg, weight: cloned(w.Weight)}, nil
}

// Bytes returns the memory of the weights.
func (op *GatedNorm) Bytes() int64 { return floatBytes(len(op.weight)) }

// ScratchBytes returns the working memory that a call takes at most, besides its
// arguments, however many tokens it has.
func (op *GatedNorm) ScratchBytes(tokens int) int64 {
	return scratchBytes(int64(len(op.weight)) * int64(parallel.Workers(op.cfg.Workers)))
}

// normalise sets dst to the norm of rows x, gated by z where it is given; gate is
// working memory for a row.
func (op *GatedNorm) normalise(dst, x, z blas32.General, gate []float32) {
	size, eps := op.cfg.GroupSize, float32(op.cfg.Eps)
	gated := mat.Given(z)
	for t := range x.Rows {
		from, to := mat.Row(x, t), mat.Row(dst, t)
		if gated {
			asm.SiLU(gate, mat.Row(z, t))
			if !op.cfg.NormBeforeGate {
				asm.Mul(to, from, gate)
				from = to
			}
		}
		for g := 0; g < x.Cols; g += size {
			asm.RMSNorm(to[g:g+size], from[g:g+size], op.weight[g:g+size], eps)
		}
		if gated && op.cfg.NormBeforeGate {
			asm.Mul(to, to, gate)
		}
	}
}
