package approx

import (
	"math"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
	"gonum.org/v1/gonum/blas/blas32"
)

// add adds to the sums of a key head: q^T k of each of its query heads, and the
// squares of their features and of its own.
func (x *XCA) add(r *sumsRun, w *workspace, set headSet, part []float32) {
	n, d, group := len(w.rows), x.sums.dim, x.sums.group()
	if n == 0 {
		return
	}
	w.row = scratch.Floats(w.row, d)
	w.e = scratch.Floats(w.e, n*d)
	scaled := mat.Of(w.e, n, d)
	squares := func(sum []float32, m blas32.General) {
		for i := 0; i < n && !w.phi.pace.stop(elsewhere*d); i++ {
			asm.Mul(w.row, mat.Row(m, i), mat.Row(m, i))
			asm.Axpy(sum, w.scale[i], w.row)
		}
	}
	for g := set.from; g < set.to; g++ {
		own := part[g*x.sums.part:][:x.sums.part]
		if r.call.weighted() {
			asm.Exp(w.weights(r, g), w.scale)
		} else {
			w.scale = scratch.Floats(w.scale, n)
			for i := range w.scale {
				w.scale[i] = 1
			}
		}
		k := w.gatheredBy(r, &w.k, r.call.K, g, g*d, d)
		squares(own[group*d*(d+1):], k)
		kernel.ScaleRows(scaled, w.scale, k)
		w.right.Set(scaled)
		for h := range group {
			q := w.gatheredBy(r, &w.v, r.call.Q, g, (g*group+h)*d, d)
			w.phi.pace.gemmTAdd(mat.Of(own[h*d*(d+1):], d, d), q, &w.right)
			squares(own[h*d*(d+1)+d*d:][:d], q)
		}
	}
}

// join makes A^T of each query head.
func (x *XCA) join(r *sumsRun, w *workspace, wave, g int) {
	d, group := x.sums.dim, x.sums.group()
	w.m, w.row = scratch.Floats(w.m, x.sums.part), scratch.Floats(w.row, d)
	clear(w.m)
	first, step, count := r.partsOf(wave, g)
	for p := 0; p < count && !w.phi.pace.stop(elsewhere*x.sums.part); p++ {
		asm.Add(w.m, w.m, r.parts[first+p*step:][:x.sums.part])
	}
	inverse := func(sum float32) float32 {
		if sum > math.MaxFloat32 { // 0 would be no product of features
			return float32(math.NaN())
		}
		return float32(1 / max(math.Sqrt(float64(sum)), 1e-12))
	}
	for b, sum := range w.m[group*d*(d+1):] {
		w.row[b] = inverse(sum)
	}
	for h := range group {
		a := mat.Of(w.m[h*d*(d+1):], d, d)
		squares := w.m[h*d*(d+1)+d*d:][:d]
		temperature := float32(1)
		if len(x.cfg.Temperature) > 0 {
			temperature = x.cfg.Temperature[g*group+h]
		}
		for i := 0; i < d && !w.phi.pace.stop(4*elsewhere*d); i++ {
			asm.Mul(mat.Row(a, i), mat.Row(a, i), w.row)
			asm.Scale(mat.Row(a, i), temperature*inverse(squares[i]), mat.Row(a, i))
			asm.Softmax(mat.Row(a, i), mat.Row(a, i))
		}
		r.matrix(wave, g, h).SetT(a)
	}
}

// apply multiplies values by A^T.
func (x *XCA) apply(r *sumsRun, w *workspace, wave, from, to int, set headSet) {
	d, group := x.sums.dim, x.sums.group()
	for h := set.from * group; h < set.to*group; h++ {
		v := mat.Columns(mat.Rows(r.call.V, from, to), h/group*d, d)
		w.phi.pace.gemm(mat.Columns(mat.Rows(r.call.Dst, from, to), h*d, d), v, r.matrix(wave, h/group, h%group))
	}
}
