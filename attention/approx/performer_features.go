package approx

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// favor is the phi of Performer.
type favor struct {
	w      kernel.Matrix // D^(-1/4) W^T [D, F]
	dim, f int
	eps    float32 // what is added to each feature
	half   float32 // D^(-1/2) / 2
	log    float32 // ln(F) / 2, for F^(-1/2)
	fixed  *float32
	relu   bool
}

func newFavor(cfg PerformerConfig) *favor {
	d, f := float64(cfg.HeadDim), float64(cfg.Features)
	p := &favor{dim: cfg.HeadDim, f: cfg.Features, relu: cfg.ReLU, eps: float32(cfg.Eps), half: float32(0.5 / math.Sqrt(d)), log: float32(logarithm(f) / 2)}
	if cfg.Stabilizer != nil {
		p.fixed = new(float32)
		*p.fixed = *cfg.Stabilizer
	}
	if !cfg.ReLU {
		p.eps = float32(float64(p.eps) / math.Sqrt(f))
	}
	scaled := mat.New(cfg.Features, cfg.HeadDim)
	asm.Scale(scaled.Data, quarterRoot(cfg.HeadDim), cfg.Projection.Data)
	p.w.SetT(scaled)
	return p
}

func (p *favor) queries(w *featureWork, dst, x blas32.General, heads int) {
	for h := range heads {
		phi, x := p.project(w, dst, x, h)
		for i := 0; i < phi.Rows && !w.pace.stop(elsewhere*p.f); i++ {
			p.row(w, mat.Row(phi, i), mat.Row(x, i), nil)
		}
	}
}

func (p *favor) keys(w *featureWork, dst, x blas32.General, heads int, tops []float32) {
	for h := range heads {
		top := p.fixed
		if tops != nil {
			top = &tops[h]
		}
		phi, x := p.project(w, dst, x, h)
		for i := 0; i < phi.Rows && !w.pace.stop(elsewhere*p.f); i++ {
			p.row(w, mat.Row(phi, i), mat.Row(x, i), top)
		}
	}
}

// project sets the columns of a head to W x, and returns them and that head's x.
func (p *favor) project(w *featureWork, dst, x blas32.General, head int) (phi, own blas32.General) {
	phi, own = mat.Columns(dst, head*p.f, p.f), mat.Columns(x, head*p.dim, p.dim)
	w.pace.gemm(phi, own, &p.w)
	return phi, own
}

// row makes features of W x; top is nil for the largest of them.
func (p *favor) row(w *featureWork, phi, x []float32, top *float32) {
	ones := w.constant(p.f)
	if p.relu {
		w.row = scratch.Floats(w.row, p.f)
		clear(w.row)
		asm.Maximum(phi, phi, w.row)
		asm.Axpy(phi, p.eps, ones)
		return
	}
	less := p.half*asm.Dot(x, x) + p.log
	if top != nil {
		less += *top
	} else {
		less += asm.Max(phi)
	}
	asm.Axpy(phi, -less, ones)
	asm.Exp(phi, phi)
	asm.Axpy(phi, p.eps, ones)
}

func (p *favor) projected() int { return p.f }

func (p *favor) top(w *featureWork, x blas32.General) float32 {
	w.block = scratch.Floats(w.block, x.Rows*p.f)
	products := mat.Of(w.block, x.Rows, p.f)
	w.pace.gemm(products, x, &p.w)
	return asm.Max(products.Data)
}
