package approx

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// taylor is the phi of Based.
type taylor struct {
	dim, width int
	quarter    float32 // D^(-1/4)
	root       float32 // D^(-1/2)
}

func newTaylor(dim int) *taylor {
	return &taylor{dim, 1 + dim + dim*(dim+1)/2, quarterRoot(dim), float32(1 / math.Sqrt(float64(dim)))}
}

func (t *taylor) queries(w *featureWork, dst, x blas32.General, heads int) {
	w.row = scratch.Floats(w.row, 2*t.dim)
	for h := range heads {
		for i := 0; i < x.Rows && !w.pace.stop(elsewhere*t.width); i++ {
			t.row(mat.Row(dst, i)[h*t.width:][:t.width], mat.Row(x, i)[h*t.dim:][:t.dim], w.row)
		}
	}
}

func (t *taylor) keys(w *featureWork, dst, x blas32.General, heads int, _ []float32) {
	t.queries(w, dst, x, heads)
}

// row sets phi [F] to the features of x [D]. Products of two elements stand by their distance,
// y[a] y[(a+s) mod D] for all a and each s up to half of D, at which, if D is even, the second
// half of them are those of the first.
func (t *taylor) row(phi, x, twice []float32) {
	d := t.dim
	phi[0] = 1
	y := phi[1:][:d]
	asm.Scale(y, t.quarter, x)
	copy(twice, y)
	copy(twice[d:], y)
	pairs := phi[1+d:]
	for s := 0; s*d < len(pairs); s++ {
		own := pairs[s*d : min((s+1)*d, len(pairs))]
		asm.Mul(own, y[:len(own)], twice[s:][:len(own)])
	}
	asm.Scale(pairs[:d], math.Sqrt2/2, pairs[:d])
}

// products makes 1 + x + x^2/2 of each pair of a query and a key, times the key's weight,
// which is its first feature.
func (t *taylor) products(w *featureWork, dst, q blas32.General, k *kernel.Matrix, phi blas32.General) {
	n := dst.Cols
	ones := w.constant(n)
	w.row = scratch.Floats(w.row, n)
	w.pace.gemm(dst, q, k)
	weighted := false
	for j := range n {
		weighted = weighted || mat.Row(phi, j)[0] != 1
	}
	for i := range dst.Rows {
		p, square := mat.Row(dst, i), w.row
		asm.Mul(square, p, p)
		asm.Scale(p, t.root, p)
		asm.Axpy(p, t.root*t.root/2, square)
		asm.Add(p, p, ones)
		for j := 0; weighted && j < n; j++ {
			if weight := mat.Row(phi, j)[0]; weight != 0 {
				p[j] *= weight
			} else {
				p[j] = 0 // what is hidden may be NaN
			}
		}
	}
}
