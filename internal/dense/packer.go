package dense

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
)

// Packer checks the weights of an operator and copies or packs them. Its first error,
// which matches ErrConfig and names the field, stays in Err; after that it packs nothing.
type Packer struct {
	// Package is the name of the operator's package, and Format what matrices become.
	Package string
	Format  asm.Format
	// Eps is that of the norms.
	Eps float32
	// Within stands before the names of fields in errors, as "Blocks[2].".
	Within string
	Err    error
}

// Matrix checks that m is rows x cols, with a row at least.
func (p *Packer) Matrix(name string, m blas32.General, rows, cols int) {
	if p.Err == nil {
		p.Err = check.Matrix(subquad.ErrConfig, p.Package, p.Within+name, m, rows, cols, "the layer's input")
	}
	if p.Err == nil && rows == 0 {
		p.Err = check.Errorf(subquad.ErrConfig, "%s: %s has no rows", p.Package, p.Within+name)
	}
}

// Vector returns a copy of x, which must have n elements or, where it is optional, be nil.
func (p *Packer) Vector(name string, x []float32, n int, optional bool) []float32 {
	if p.Err == nil && !(optional && x == nil) {
		p.Err = check.Vector(subquad.ErrConfig, p.Package, p.Within+name, x, n, "its layer's rows")
	}
	return append([]float32(nil), x...)
}

// Linear returns a layer of a matrix [out, in] and a bias [out] or nil.
func (p *Packer) Linear(name string, m blas32.General, bias []float32, out, in int) *Linear {
	p.Matrix(name, m, out, in)
	bias = p.Vector(name+"Bias", bias, out, true)
	if p.Err != nil {
		return nil
	}
	return NewLinear(p.Format, m, bias)
}

// Norm returns a copy of a norm of dim elements, name and the name with Bias behind it, which
// may be nil where it is optional.
func (p *Packer) Norm(name string, weight, bias []float32, dim int, optional bool) Norm {
	return Norm{Weight: p.Vector(name, weight, dim, false), Bias: p.Vector(name+"Bias", bias, dim, optional), Eps: p.Eps}
}
