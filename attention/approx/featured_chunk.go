package approx

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
)

// states calls f with the S of each head of a set, panel by panel, as it is kept
// and as it is multiplied by.
func (w *causalWork) states(s *sums, set headSet, values []float32, f func(state, panel blas32.General)) {
	for g := set.from; g < set.to; g++ {
		w.panels(s, set, g, values, f)
	}
}

// panels is states for one head.
func (w *causalWork) panels(s *sums, set headSet, g int, values []float32, f func(state, panel blas32.General)) {
	state := mat.Of(values[g*s.part:], s.width, s.valueDim)
	for j := range s.panels() {
		panel := mat.Rows(w.right[g-set.from].Panel(j), 0, s.width)
		f(mat.Columns(state, j*kernel.PanelCols(), panel.Cols), panel)
	}
}

func (s *sums) panels() int { return (s.valueDim + kernel.PanelCols() - 1) / kernel.PanelCols() }

// features sets w.k to s phi(k) of the rows, 0 where they are hidden.
func (w *causalWork) features(r *causalRun, set headSet, from, to int) blas32.General {
	s, heads := &r.op.sums, set.to-set.from
	d := s.width
	e := mat.Of(w.k, to-from, heads*d)
	k := mat.Columns(mat.Rows(r.call.K, from, to), set.from*s.dim, heads*s.dim)
	r.op.phi.keys(&w.phi, e, k, heads, r.tops.of(r.seqs.k, from, set))
	for i := range e.Rows {
		if !r.call.seen(from + i) {
			clear(mat.Row(e, i))
		}
	}
	for g := set.from; r.call.weighted() && g < set.to; g++ {
		s := w.scale[:e.Rows]
		for i := range s {
			s[i] = 0
			if r.call.seen(from + i) {
				s[i] = r.call.logWeight(from+i, g)
			}
		}
		asm.Exp(s, s)
		weigh(mat.Columns(e, (g-set.from)*d, d), s)
	}
	return e
}

// token is the recurrence, one token at a time:
//
//	S = S + phi(k) v^T;  z = z + phi(k);  out = phi(q) S / (phi(q).z + eps)
//
// where S and z are, if older is set, two sums each: of the latest tokens, and of all before.
func (w *causalWork) token(r *causalRun, set headSet, t int, sums causalSums, older bool) {
	s := &r.op.sums
	d, dv := s.width, s.valueDim
	keys := mat.Row(w.features(r, set, t, t+1), 0)
	if len(w.nothing) < d {
		w.nothing = make([]float32, d)
	}
	v, group := w.value, s.group()
	queries := mat.Columns(mat.Rows(r.call.Q, t, t+1), set.from*group*s.dim, (set.to-set.from)*group*s.dim)
	r.op.phi.queries(&w.phi, mat.Vector(w.left[:(set.to-set.from)*group*d]), queries, (set.to-set.from)*group)
	for g := set.from; g < set.to; g++ {
		own, all := sums.latest[g*s.part:][:s.part], sums.all[g*s.part:][:s.part]
		state, z, k := mat.Of(own, d, dv), own[d*dv:], keys[(g-set.from)*d:][:d]
		clear(v)
		if r.call.seenBy(t, g) {
			copy(v, mat.Row(r.call.V, t)[g*dv:])
		}
		asm.Add(z, z, k)
		for h := g * group; h < (g+1)*group && !w.phi.pace.stop(2*d*dv); h++ {
			q := w.left[(h-set.from*group)*d:][:d]
			out := mat.Row(r.call.Dst, t)[h*dv:][:dv]
			kernel.OuterStep(out, state, 1, k, q, v)
			below := asm.Dot(q, z)
			if older {
				kernel.Combine(w.older, mat.Of(all, d, dv), q)
				asm.Add(out, out, w.older)
				below += asm.Dot(q, all[d*dv:])
			}
			asm.Scale(out, r.op.divisor(q, below), out)
			k = w.nothing[:d] // it has been taken up
		}
	}
}

// chunk computes a chunk by matrix products:
//
//	out = [phi(q) | tril(phi(q) phi(k)^T)] [S; v] / (phi(q).z + sum over j <= i of phi(q[i]).phi(k[j]) + eps)
//	S = S + phi(k)^T v;  z = z + sum over j of phi(k[j])
//
// If older is set, S and z are read with what earlier tokens have left, and added to without.
func (w *causalWork) chunk(r *causalRun, set headSet, from, to int, sums causalSums, older bool) {
	s := &r.op.sums
	n, d, dv, group, width := to-from, s.width, s.valueDim, s.group(), kernel.PanelCols()
	keys := w.features(r, set, from, to)
	wide := blas32.General{Rows: n, Cols: s.leftCols(), Stride: s.leftCols(), Data: w.left}
	queries := mat.Columns(mat.Rows(r.call.Q, from, to), set.from*group*s.dim, (set.to-set.from)*group*s.dim)
	for h := range (set.to - set.from) * group {
		r.op.phi.queries(&w.phi, mat.Columns(wide, h*(d+chunkRows), d), mat.Columns(queries, h*s.dim, s.dim), 1)
	}
	for g := set.from; g < set.to; g++ {
		k, right := mat.Columns(keys, (g-set.from)*d, d), &w.right[g-set.from]
		latest, all := sums.latest[g*s.part:][:s.part], sums.all[g*s.part:][:s.part]
		z, zRead := latest[d*dv:], latest[d*dv:]
		if older {
			zRead = w.z
			asm.Add(zRead, z, all[d*dv:])
			at := mat.Of(all, d, dv)
			w.panels(s, set, g, sums.latest, func(state, panel blas32.General) {
				for i := range d {
					asm.Add(mat.Row(panel, i), mat.Row(state, i), mat.Row(at, i)[:panel.Cols])
				}
				at.Data = at.Data[min(kernel.PanelCols(), len(at.Data)):]
			})
		}
		if r.op.pairs == nil {
			w.keys.SetT(k) // [F, n]
		} else {
			w.keys.SetT(mat.Columns(mat.Rows(r.call.K, from, to), g*s.dim, s.dim)) // [D, n]
		}
		together := min(rowsTogether, rowsAtOnce((d+n)*dv))
		for j := range s.panels() {
			below := mat.Rows(right.Panel(j), d, d+n)
			v := mat.Columns(mat.Rows(r.call.V, from, to), g*dv+j*width, below.Cols)
			for i := range n {
				if r.call.seenBy(from+i, g) {
					copy(mat.Row(below, i), mat.Row(v, i))
				} else {
					clear(mat.Row(below, i))
				}
				if !finite(asm.Sum(mat.Row(below, i))) {
					together = 1 // 0 times it is NaN to the rows before
				}
			}
		}
		for h := g * group; h < (g+1)*group; h++ {
			left := mat.Columns(wide, (h-set.from*group)*(d+chunkRows), d+n)
			q, products := mat.Columns(left, 0, d), mat.Columns(left, d, n)
			if r.op.pairs == nil {
				w.phi.pace.gemm(products, q, &w.keys)
			} else {
				r.op.pairs.products(&w.phi, products, mat.Columns(queries, (h-set.from*group)*s.dim, s.dim), &w.keys, k)
			}
			for i := range n {
				p := mat.Row(products, i)
				clear(p[i+1:])
				w.scale[i] = r.op.divisor(mat.Row(q, i), asm.Dot(mat.Row(q, i), zRead)+asm.Sum(p[:i+1]))
			}
			kernel.ScaleRows(left, w.scale[:n], left)
			dst := mat.Columns(mat.Rows(r.call.Dst, from, to), h*dv, dv)
			for t := 0; t < n && !w.phi.pace.stop(together*(d+n)*dv); t += together {
				end := min(t+together, n)
				for j := range s.panels() {
					part := right.PanelRows(j, 0, d+end)
					_, cols := part.Dims()
					kernel.Gemm(mat.Columns(mat.Rows(dst, t, end), j*width, cols), mat.Columns(mat.Rows(left, t, end), 0, d+end), &part, nil)
				}
			}
		}
		for j := range s.panels() {
			v := right.PanelRows(j, d, d+n)
			into := mat.Rows(right.Panel(j), 0, d)
			if older {
				into = mat.Columns(mat.Of(latest, d, dv), j*width, into.Cols)
			}
			w.phi.pace.gemmTAdd(into, k, &v)
		}
		for i := range n {
			asm.Add(z, z, mat.Row(k, i))
		}
	}
}
