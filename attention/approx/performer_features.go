package approx

import (
	"math"
	"math/rand/v2"

	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/floats"

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
	p := &favor{dim: cfg.HeadDim, f: cfg.Features, relu: cfg.ReLU, eps: cfg.Eps, half: float32(0.5 / math.Sqrt(d)), log: float32(math.Log(f) / 2)}
	if cfg.Stabiliser != nil {
		p.fixed = new(float32)
		*p.fixed = *cfg.Stabiliser
	}
	if !cfg.ReLU {
		p.eps = float32(float64(cfg.Eps) / math.Sqrt(f))
	}
	scaled := mat.New(cfg.Features, cfg.HeadDim)
	asm.Scale(scaled.Data, float32(math.Pow(d, -0.25)), cfg.Projection.Data)
	p.w.SetT(scaled)
	return p
}

func (p *favor) queries(w *featureWork, dst, x blas32.General, heads int) {
	for h := range heads {
		phi, x := p.project(dst, x, h)
		for i := range phi.Rows {
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
		phi, x := p.project(dst, x, h)
		for i := range phi.Rows {
			p.row(w, mat.Row(phi, i), mat.Row(x, i), top)
		}
	}
}

// project sets the columns of a head to W x, and returns them and that head's x.
func (p *favor) project(dst, x blas32.General, head int) (phi, own blas32.General) {
	phi, own = mat.Columns(dst, head*p.f, p.f), mat.Columns(x, head*p.dim, p.dim)
	kernel.Gemm(phi, own, &p.w, nil)
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
	kernel.Gemm(products, x, &p.w, nil)
	return asm.Max(products.Data)
}

// maxMade bounds the multiply-adds by which a projection is made: some seconds.
const maxMade = 1 << 30

// orthogonal makes a projection; NewPerformer tells how.
func orthogonal(features, dim int, seed uint64) blas32.General {
	random := rand.NewPCG(seed, 0)
	uniform := func() float64 { return (float64(random.Uint64()>>11) + 0.5) / (1 << 53) }
	var left float64 // the sine's, where there is one
	given := false
	normal := func() float64 {
		if given = !given; !given {
			return left
		}
		length, angle := math.Sqrt(-2*math.Log(uniform())), 2*math.Pi*uniform()
		left = length * math.Sin(angle)
		return length * math.Cos(angle)
	}
	w := make([][]float64, features)
	for first := 0; first < features; first += dim {
		block := make([][]float64, dim)
		for i := range block {
			block[i] = make([]float64, dim)
			for j := range block[i] {
				block[i][j] = normal()
			}
		}
		for i, row := range block {
			for range 2 { // Gram and Schmidt, again for what rounding has left
				for _, before := range block[:i] {
					floats.AddScaled(row, -floats.Dot(row, before), before)
				}
			}
			floats.Scale(1/floats.Norm(row, 2), row)
		}
		copy(w[first:], block)
	}
	m := mat.New(features, dim)
	for i, row := range w {
		length := 0.0
		for range dim {
			x := normal()
			length += x * x
		}
		floats.Scale(math.Sqrt(length), row)
		for j, x := range row {
			mat.Row(m, i)[j] = float32(x)
		}
	}
	return m
}
