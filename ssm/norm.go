package ssm

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
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
}

// GatedNorm is the RMSNorm with a gate of Mamba-2 (Dao and Gu 2024):
//
//	dst = rms(x silu(z)) weight, or, with NormBeforeGate, rms(x) weight silu(z),
//
// rms(v) = v / sqrt(mean(v^2) + Eps), the mean over each group of channels. It is
// immutable and safe for concurrent use.
type GatedNorm struct {
	cfg     GatedNormConfig
	weight  []float32
	scratch scratch.List[[]float32]
}

// NewGatedNorm returns a norm of len(weight) channels. Errors match ErrConfig.
func NewGatedNorm(cfg GatedNormConfig, weight []float32) (*GatedNorm, error) {
	if cfg.GroupSize == 0 {
		cfg.GroupSize = len(weight)
	}
	if cfg.Eps == 0 {
		cfg.Eps = 1e-5
	}
	switch {
	case len(weight) == 0:
		return nil, check.Errorf(ErrConfig, "ssm: the norm's weight is empty")
	case cfg.GroupSize < 0 || len(weight)%cfg.GroupSize != 0:
		return nil, check.Errorf(ErrConfig, "ssm: GroupSize is %d, want a divisor of the %d channels", cfg.GroupSize, len(weight))
	case !(cfg.Eps > 0) || math.IsInf(cfg.Eps, 0):
		return nil, check.Errorf(ErrConfig, "ssm: Eps is %v, want a finite number above 0", cfg.Eps)
	}
	return &GatedNorm{cfg: cfg, weight: append([]float32{}, weight...)}, nil
}

// Forward normalises rows: dst, x and the gate z are [n, channels]; a zero z is no
// gate. dst may be x. After the first call it allocates nothing.
func (op *GatedNorm) Forward(dst, x, z blas32.General) error {
	cols := len(op.weight)
	if err := check.Matrix(ErrShape, "ssm", "x", x, -1, cols, "channels"); err != nil {
		return err
	}
	if gated(z) {
		if err := check.Matrix(ErrShape, "ssm", "z", z, x.Rows, cols, "channels"); err != nil {
			return err
		}
		if mat.Overlap(dst, z) {
			return check.Errorf(ErrShape, "ssm: dst shares elements with z")
		}
	}
	if err := check.Output(ErrShape, "ssm", dst, x.Rows, cols, "channels", x, true); err != nil {
		return err
	}
	s := op.scratch.Get()
	defer op.scratch.Put(s)
	*s = scratch.Floats(*s, cols)
	op.rows(dst, x, z, *s)
	return nil
}

// ScratchBytes returns the working memory that a call holds, however many tokens it
// has.
func (op *GatedNorm) ScratchBytes(tokens int) int64 { return scratchBytes(int64(len(op.weight))) }

// gated tells whether an optional matrix is given.
func gated(z blas32.General) bool { return z.Rows != 0 || z.Cols != 0 || z.Data != nil }

// rows normalises rows; gate is scratch of a row.
func (op *GatedNorm) rows(dst, x, z blas32.General, gate []float32) {
	size := op.cfg.GroupSize
	for t := range x.Rows {
		from, to := x.Data[t*x.Stride:][:x.Cols], dst.Data[t*dst.Stride:][:x.Cols]
		if gated(z) {
			asm.SiLU(gate, z.Data[t*z.Stride:][:x.Cols])
			if !op.cfg.NormBeforeGate {
				asm.Mul(to, from, gate)
				from = to
			}
		}
		for g := 0; g < x.Cols; g += size {
			asm.RMSNorm(to[g:g+size], from[g:g+size], op.weight[g:g+size], float32(op.cfg.Eps))
		}
		if gated(z) && op.cfg.NormBeforeGate {
			asm.Mul(to, to, gate)
		}
	}
}
