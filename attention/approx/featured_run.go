package approx

import (
	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// add adds phi(k) v^T to S, and phi(k) to z, which stands below it.
func (l *featured) add(r *sumsRun, w *workspace, set headSet, part []float32) {
	n, d, dv := len(w.rows), l.sums.width, l.sums.valueDim
	if n == 0 {
		return
	}
	cols := (set.to - set.from) * d
	w.e, w.row = scratch.Floats(w.e, n*cols), scratch.Floats(w.row, cols)
	e := mat.Of(w.e, n, cols) // phi(k), [n, heads d]
	k := w.gathered(&w.k, r.call.K, set.from*l.sums.dim, (set.to-set.from)*l.sums.dim)
	l.phi.keys(&w.phi, e, k, set.to-set.from, r.tops.of(r.seqs.k, w.rows[0], set))
	if r.call.weighted() {
		r.perWeight(set, func(from, to int) {
			s := w.weights(r, from)
			asm.Exp(s, s)
			weigh(mat.Columns(e, (from-set.from)*d, (to-from)*d), s)
		})
	}
	clear(w.row)
	for i := range n {
		asm.Add(w.row, w.row, mat.Row(e, i))
	}
	for h := set.from; h < set.to; h++ {
		own := part[h*l.sums.part:][:l.sums.part]
		z := own[d*dv:]
		asm.Add(z, z, w.row[(h-set.from)*d:][:d])
		w.right.Set(w.gatheredBy(r, &w.v, r.call.V, h, h*dv, dv))
		w.phi.pace.gemmTAdd(mat.Of(own, d, dv), mat.Columns(e, (h-set.from)*d, d), &w.right)
	}
}

// join adds the pieces up.
func (l *featured) join(r *sumsRun, w *workspace, wave, head int) {
	d, dv := l.sums.width, l.sums.valueDim
	w.m = scratch.Floats(w.m, l.sums.part)
	clear(w.m)
	first, step, count := r.partsOf(wave, head)
	for p := 0; p < count && !w.phi.pace.stop(elsewhere*l.sums.part); p++ {
		asm.Add(w.m, w.m, r.parts[first+p*step:][:l.sums.part])
	}
	r.matrix(wave, head, 0).Set(mat.Of(w.m, d, dv))
	copy(r.vector(wave, head), w.m[d*dv:])
}

// apply divides phi(q) by its denominator and multiplies it by S.
func (l *featured) apply(r *sumsRun, w *workspace, wave, from, to int, set headSet) {
	n, d, dv, group := to-from, l.sums.width, l.sums.valueDim, l.sums.group()
	cols := (set.to - set.from) * group * d
	w.e, w.scale = scratch.Floats(w.e, n*cols), scratch.Floats(w.scale, n)
	e := mat.Of(w.e, n, cols)
	heads := (set.to - set.from) * group
	q := mat.Columns(mat.Rows(r.call.Q, from, to), set.from*group*l.sums.dim, heads*l.sums.dim)
	l.phi.queries(&w.phi, e, q, heads)
	dst := mat.Rows(r.call.Dst, from, to)
	for h := set.from * group; h < set.to*group; h++ {
		own := mat.Columns(e, (h-set.from*group)*d, d)
		z := r.vector(wave, h/group)
		for i := range n {
			w.scale[i] = l.divisor(mat.Row(own, i), asm.Dot(mat.Row(own, i), z))
		}
		kernel.ScaleRows(own, w.scale, own)
		w.phi.pace.gemm(mat.Columns(dst, h*dv, dv), own, r.matrix(wave, h/group, 0))
	}
}
