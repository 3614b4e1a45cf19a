package merge

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
)

// NormWeights are those of a layer norm, [dim] each, with an eps of 1e-5.
type NormWeights struct{ Weight, Bias []float32 }

const normEps = 1e-5

func (n *NormWeights) apply(dst, x blas32.General, eps float32) {
	for t := range x.Rows {
		asm.LayerNorm(row(dst, t), row(x, t), n.Weight, n.Bias, eps)
	}
}

// weightsOf checks weights, and copies or packs them. Its first error stays.
type weightsOf struct {
	format asm.Format
	within string // what comes before their names
	err    error
}

func (w *weightsOf) matrix(name string, m blas32.General, rows, cols int) {
	if w.err == nil {
		w.err = check.Matrix(ErrConfig, "merge", w.within+name, m, rows, cols, "the layer's input")
	}
	if w.err == nil && rows == 0 {
		w.err = check.Errorf(ErrConfig, "merge: %s has no rows", w.within+name)
	}
}

func (w *weightsOf) vector(name string, x []float32, n int, optional bool) []float32 {
	if w.err == nil && !(optional && x == nil) {
		w.err = check.Vector(ErrConfig, "merge", w.within+name, x, n, "its layer's rows")
	}
	return append([]float32(nil), x...)
}

// linear is a layer whose bias may be nil.
func (w *weightsOf) linear(name string, m blas32.General, bias []float32, out, in int) *dense.Linear {
	w.matrix(name, m, out, in)
	bias = w.vector(name+"Bias", bias, out, true)
	if w.err != nil {
		return nil
	}
	return dense.NewLinear(w.format, m, bias)
}

// norm is a norm whose bias may be nil where it is optional.
func (w *weightsOf) norm(name string, n NormWeights, dim int, optional bool) NormWeights {
	return NormWeights{w.vector(name+"Weight", n.Weight, dim, false), w.vector(name+"Bias", n.Bias, dim, optional)}
}
