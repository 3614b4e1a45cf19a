package approx

import (
	"math"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

var negInf = float32(math.Inf(-1))

// add adds keys to a partial sum: exp(k + w - top)^T v [D, Dv], below it the sums
// of exp(k + w - top), and top, the largest k + w so far of each feature. The
// softmax over tokens is online, like that of exact attention.
func (e *Efficient) add(r *sumsRun, w *workspace, set headSet, part []float32) {
	n, d, dv := len(w.rows), e.sums.dim, e.sums.valueDim
	if n == 0 {
		return
	}
	cols := (set.to - set.from) * d
	w.e, w.top, w.shift, w.row = scratch.Floats(w.e, n*cols), scratch.Floats(w.top, cols), scratch.Floats(w.shift, cols), scratch.Floats(w.row, cols)
	x := mat.Of(w.e, n, cols)
	from := mat.Columns(r.call.K, set.from*d, cols)
	for i, j := range w.rows {
		copy(mat.Row(x, i), mat.Row(from, j))
	}
	if r.call.weighted() {
		w.one(cols)
		r.perWeight(set, func(from, to int) {
			own := mat.Columns(x, (from-set.from)*d, (to-from)*d)
			for i, s := range w.weights(r, from) {
				if s == negInf { // it may be NaN
					fill(mat.Row(own, i), s)
					continue
				}
				asm.Axpy(mat.Row(own, i), s, w.ones[:own.Cols])
			}
		})
	}
	copy(w.top, mat.Row(x, 0))
	for i := 1; i < n; i++ {
		asm.Maximum(w.top, w.top, mat.Row(x, i))
	}
	for h := set.from; h < set.to; h++ { // the largest so far, and the factor of what there is
		z := part[h*e.sums.part+d*dv:][:d]
		old := part[h*e.sums.part+d*dv+d:][:d]
		top, factor := w.top[(h-set.from)*d:][:d], w.row[(h-set.from)*d:][:d]
		for i, t := range top {
			factor[i] = negInf // there is nothing yet
			if z[i] != 0 {
				t = max(t, old[i])
				factor[i] = old[i] - t
			}
			old[i] = t
			if t == negInf {
				t = 0 // all hidden so far
			}
			w.shift[(h-set.from)*d+i] = t
		}
	}
	asm.Exp(w.row, w.row)
	for i := range n {
		asm.Axpy(mat.Row(x, i), -1, w.shift)
	}
	asm.Exp(x.Data, x.Data)
	clear(w.shift)
	for i := range n {
		asm.Add(w.shift, w.shift, mat.Row(x, i))
	}
	for h := set.from; h < set.to; h++ {
		own, at := part[h*e.sums.part:][:e.sums.part], (h-set.from)*d
		sum, z := mat.Of(own, d, dv), own[d*dv:][:d]
		kernel.ScaleRows(sum, w.row[at:][:d], sum)
		asm.Mul(z, z, w.row[at:][:d])
		asm.Add(z, z, w.shift[at:][:d])
		w.right.Set(w.gatheredBy(r, &w.v, r.call.V, h, h*dv, dv))
		w.phi.pace.gemmTAdd(sum, mat.Columns(x, at, d), &w.right)
	}
}

// join puts the pieces' sums together and divides.
func (e *Efficient) join(r *sumsRun, w *workspace, wave, head int) {
	d, dv := e.sums.dim, e.sums.valueDim
	first, step, count := r.partsOf(wave, head)
	pieceOf := func(p int) (sum, z, top []float32) {
		own := r.parts[first+p*step:][:e.sums.part]
		return own[:d*dv], own[d*dv:][:d], own[d*dv+d:]
	}
	w.m, w.row = scratch.Floats(w.m, d*dv), scratch.Floats(w.row, dv)
	c := mat.Of(w.m, d, dv)
	for i := 0; i < d && !w.phi.pace.stop(elsewhere*count*dv); i++ {
		top := negInf
		for p := range count {
			if _, z, t := pieceOf(p); z[i] != 0 {
				top = max(top, t[i])
			}
		}
		var total float64
		clear(mat.Row(c, i))
		for p := range count {
			sum, z, t := pieceOf(p)
			if z[i] == 0 {
				continue
			}
			factor := float32(math.Exp(float64(t[i]) - float64(top)))
			total += float64(factor) * float64(z[i])
			asm.Axpy(mat.Row(c, i), factor, sum[i*dv:][:dv])
		}
		if total != 0 {
			asm.Scale(mat.Row(c, i), float32(1/total), mat.Row(c, i))
		}
	}
	r.matrix(wave, head, 0).Set(c)
}

// apply multiplies softmax(q) by C.
func (e *Efficient) apply(r *sumsRun, w *workspace, wave, from, to int, set headSet) {
	n, d, dv, group := to-from, e.sums.dim, e.sums.valueDim, e.sums.group()
	w.e = scratch.Floats(w.e, n*d)
	w.scale, w.top, w.factors = scratch.Floats(w.scale, n), scratch.Floats(w.top, n), scratch.Floats(w.factors, n)
	x, sum := mat.Of(w.e, n, d), w.scale
	for h := set.from * group; h < set.to*group; h++ {
		q := mat.Columns(mat.Rows(r.call.Q, from, to), h*d, d)
		if w.phi.pace.stop(elsewhere * n * d) {
			return
		}
		for i := range n {
			copy(mat.Row(x, i), mat.Row(q, i))
			w.top[i], sum[i] = -math.MaxFloat32, 0
		}
		e.tile.Weights(x, w.top, sum, w.factors)
		for i, s := range sum {
			if s != 0 { // all -Inf otherwise
				sum[i] = 1 / s
			}
		}
		kernel.ScaleRows(x, sum, x)
		w.phi.pace.gemm(mat.Columns(mat.Rows(r.call.Dst, from, to), h*dv, dv), x, r.matrix(wave, h/group, 0))
	}
}

func fill(row []float32, x float32) {
	for i := range row {
		row[i] = x
	}
}

// one makes ones of n elements or more.
func (w *workspace) one(n int) {
	for len(w.ones) < n {
		w.ones = append(w.ones, 1)
	}
}
