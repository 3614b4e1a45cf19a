package longmamba

import (
	"cmp"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
)

// DecimationConfig fixes a Decimation.
type DecimationConfig struct {
	// Layers are those after which tokens are dropped, in the order in which they
	// come: after the s-th, from 0, there are at most Base Beta^s.
	Layers []int
	// Base is L_base; 0 is 2000. Beta 0 is 0.5.
	Base int
	Beta float64
	// MinTokens are kept in any case; 0 is 20, and less is none.
	MinTokens int
	// Response is how many tokens at the end are kept, beside those counted; 0 is none.
	Response int
}

// Decimation is DeciMamba's dropping of tokens (2024, arXiv 2406.14528): in some
// layers of a Mamba, of a prompt's tokens only those whose steps have the largest
// norm go on, to all later layers.
//
// It is immutable and safe for concurrent use.
type Decimation struct{ cfg DecimationConfig }

// NewDecimation returns a decimation, or an error that matches ErrConfig.
func NewDecimation(cfg DecimationConfig) (*Decimation, error) {
	cfg.Base, cfg.Beta, cfg.MinTokens = cmp.Or(cfg.Base, 2000), cmp.Or(cfg.Beta, 0.5), cmp.Or(cfg.MinTokens, 20)
	switch {
	case cfg.Base < 0:
		return nil, check.Errorf(ErrConfig, "longmamba: Base is %d, want 0 or more", cfg.Base)
	case !(cfg.Beta > 0) || math.IsInf(cfg.Beta, 0):
		return nil, check.Errorf(ErrConfig, "longmamba: Beta is %v, want a finite number above 0", cfg.Beta)
	case cfg.Response < 0:
		return nil, check.Errorf(ErrConfig, "longmamba: Response is %d, want 0 or more", cfg.Response)
	}
	seen := map[int]bool{}
	for i, layer := range cfg.Layers {
		if layer < 0 || seen[layer] {
			return nil, check.Errorf(ErrConfig, "longmamba: Layers[%d] is %d, want 0 or more, and each layer once", i, layer)
		}
		seen[layer] = true
	}
	cfg.Layers = append([]int{}, cfg.Layers...)
	return &Decimation{cfg}, nil
}

// Drops tells whether tokens are dropped after a layer.
func (d *Decimation) Drops(layer int) bool { return d.order(layer) >= 0 }

func (d *Decimation) order(layer int) int {
	for s, l := range d.cfg.Layers {
		if l == layer {
			return s
		}
	}
	return -1
}

// Keep returns the indices, ascending, of the tokens that go on after a layer, of
// the layer's steps dt [n, channels], as ssm.RecordSteps records them. Equal norms are
// kept in the order of the tokens. Errors match ErrShape.
func (d *Decimation) Keep(layer int, dt blas32.General) ([]int, error) {
	if err := check.Matrix(ErrShape, "longmamba", "dt", dt, -1, max(dt.Cols, 0), "channels"); err != nil {
		return nil, err
	}
	context, s := max(dt.Rows-d.cfg.Response, 0), d.order(layer)
	kept := make([]int, 0, dt.Rows)
	if s >= 0 {
		count := math.Max(math.Min(float64(context), float64(d.cfg.Base)*math.Pow(d.cfg.Beta, float64(s))), float64(d.cfg.MinTokens))
		kept = append(kept, largest(norms(dt, nil, context), int(math.Min(count, float64(context))))...)
	} else {
		context = 0
	}
	for t := context; t < dt.Rows; t++ {
		kept = append(kept, t)
	}
	return kept, nil
}
