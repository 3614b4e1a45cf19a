package approx

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

const (
	chunkRows    = 64   // tokens of a chunk
	rowsTogether = 24   // rows of a chunk that see as much of it, a multiple of every tier's tile
	fewRows      = 8    // up to which tokens go one by one
	passRows     = 8192 // tokens of a sequence between looks at the context
)

// causalRun is the working memory of one call of a causal Linear.
type causalRun struct {
	op     *Linear
	call   Call
	seqs   sequences
	group  parallel.Group
	values []float32 // for each sequence and key head: S [D, Dv], and z [D] below it
	pass   int
	work   []causalWork

	set func(worker, task int)
}

// causalWork is what each worker has for itself.
type causalWork struct {
	k       []float32       // phi(k) of a chunk for a set's heads, [C, set D]
	left    []float32       // [phi(q) | its products with phi(k)] side by side, [C, set (D+C)]
	scale   []float32       // one for each row
	value   []float32       // of one token
	nothing []float32       // [D] of 0
	keys    kernel.Matrix   // phi(k)^T of a head, [D, C]
	right   []kernel.Matrix // of each head, [D+C, Dv]: S, and a chunk's values below it
}

// causalSet is how many key heads go together: few, since sets are what workers
// share.
func (s *sums) causalSet() int { return max(1, s.perSet()/2) }

func (s *sums) causalSets() int { return (s.kvHeads + s.causalSet() - 1) / s.causalSet() }

// leftCols is the stride of a set's left matrices, not a large power of 2.
func (s *sums) leftCols() int { return s.causalSet()*s.group()*(s.dim+chunkRows) + 16 }

func (l *Linear) causalBytes() int64 {
	s := &l.sums
	d, dv := int64(s.dim), int64(s.valueDim)
	set := int64(s.causalSet())
	each := chunkRows*(set*d+int64(s.leftCols())+1) + d*(chunkRows+maxPanel) + set*((d+chunkRows)*(dv+maxPanel)+16) + 2*(d+dv) + 128
	return 4*(int64(s.kvHeads*s.part)+int64(parallel.Workers(s.workers))*each) + 4096
}

func (l *Linear) runCausal(ctx context.Context, call *Call) error {
	r := l.scratch.Get()
	defer l.scratch.Put(r)
	r.op = l
	if err := r.seqs.set(call, &l.sums.shape, true); err != nil {
		return err
	}
	if call.State != nil {
		if err := call.State.of(l, r.seqs.count()); err != nil {
			return err
		}
	}
	r.call = *call
	defer func() { r.call, r.seqs = Call{}, sequences{} }()
	if r.set == nil {
		r.set = r.setTask
	}
	s := &l.sums
	r.values = scratch.Floats(r.values, r.seqs.count()*s.kvHeads*s.part)
	if call.State != nil {
		copy(r.values, call.State.values)
	} else {
		clear(r.values)
	}
	longest := 0
	for b := range r.seqs.count() {
		longest = max(longest, r.seqs.q[b+1]-r.seqs.q[b])
	}
	workers := 1
	if int64(call.Q.Rows)*int64(s.heads*s.dim)*int64(s.valueDim) > aloneWork {
		workers = parallel.Workers(s.workers)
	}
	for len(r.work) < workers {
		r.work = append(r.work, causalWork{})
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for r.pass = 0; r.pass < longest; r.pass += passRows {
		if err := r.group.Run(ctx, workers, r.seqs.count()*s.causalSets(), r.set); err != nil {
			return wrap(ctx, err)
		}
	}
	if call.State != nil {
		call.State.advance(r.values, call.Q.Rows)
	}
	return nil
}

// setTask takes a set of key heads of one sequence through the rows of the pass.
func (r *causalRun) setTask(worker, task int) {
	s, w := &r.op.sums, &r.work[worker]
	b, first := task/s.causalSets(), task%s.causalSets()*s.causalSet()
	set := headSet{first, min(first+s.causalSet(), s.kvHeads)}
	from := r.seqs.q[b] + r.pass
	to := min(from+passRows, r.seqs.q[b+1])
	if from >= to {
		return
	}
	values := r.values[b*s.kvHeads*s.part:][:s.kvHeads*s.part]
	w.k, w.left = scratch.Floats(w.k, chunkRows*s.causalSet()*s.dim), scratch.Floats(w.left, chunkRows*s.leftCols())
	w.scale, w.value = scratch.Floats(w.scale, chunkRows), scratch.Floats(w.value, s.valueDim)
	if to-from <= fewRows {
		for t := from; t < to; t++ {
			w.token(r, set, t, values)
		}
		return
	}
	for len(w.right) < s.causalSet() {
		w.right = append(w.right, kernel.Matrix{})
	}
	for h := range set.to - set.from {
		w.right[h].Reshape(s.dim+chunkRows, s.valueDim)
	}
	w.states(s, set, values, func(state, panel blas32.General) { copyRows(panel, state) })
	for ; from < to; from += chunkRows {
		w.chunk(r, set, from, min(from+chunkRows, to), values)
	}
	w.states(s, set, values, func(state, panel blas32.General) { copyRows(state, panel) })
}

// states calls f with the S of each head of a set, panel by panel, as it is kept
// and as it is multiplied by.
func (w *causalWork) states(s *sums, set headSet, values []float32, f func(state, panel blas32.General)) {
	for g := set.from; g < set.to; g++ {
		state := mat.Of(values[g*s.part:], s.dim, s.valueDim)
		for j := range s.panels() {
			panel := mat.Rows(w.right[g-set.from].Panel(j), 0, s.dim)
			f(mat.Columns(state, j*kernel.PanelCols(), panel.Cols), panel)
		}
	}
}

func (s *sums) panels() int { return (s.valueDim + kernel.PanelCols() - 1) / kernel.PanelCols() }

// features sets w.k to s phi(k) of the rows, 0 where they are hidden.
func (w *causalWork) features(r *causalRun, set headSet, from, to int) blas32.General {
	d := r.op.sums.dim
	e := mat.Of(w.k, to-from, (set.to-set.from)*d)
	for i := range e.Rows {
		if !r.call.seen(from + i) {
			clear(row(e, i))
			continue
		}
		asm.ELUPlusOne(row(e, i), row(r.call.K, from+i)[set.from*d:][:e.Cols])
	}
	for g := set.from; weighted(&r.call) && g < set.to; g++ {
		s := w.scale[:e.Rows]
		for i := range s {
			s[i] = 0
			if r.call.seen(from + i) {
				s[i] = r.call.logWeight(from+i, g)
			}
		}
		asm.Exp(s, s)
		own := mat.Columns(e, (g-set.from)*d, d)
		kernel.ScaleRows(own, s, own)
	}
	return e
}

// token is the recurrence, one token at a time:
//
//	S = S + phi(k) v^T;  z = z + phi(k);  out = phi(q) S / (phi(q).z + eps)
func (w *causalWork) token(r *causalRun, set headSet, t int, values []float32) {
	s := &r.op.sums
	d, dv := s.dim, s.valueDim
	keys := row(w.features(r, set, t, t+1), 0)
	if len(w.nothing) < d {
		w.nothing = make([]float32, d)
	}
	v, q := w.value, w.left[:d]
	for g := set.from; g < set.to; g++ {
		own := values[g*s.part:][:s.part]
		state, z, k := mat.Of(own, d, dv), own[d*dv:], keys[(g-set.from)*d:][:d]
		clear(v)
		if r.call.seen(t) {
			copy(v, row(r.call.V, t)[g*dv:])
		}
		asm.Add(z, z, k)
		for h := g * s.group(); h < (g+1)*s.group(); h++ {
			asm.ELUPlusOne(q, row(r.call.Q, t)[h*d:][:d])
			out := row(r.call.Dst, t)[h*dv:][:dv]
			kernel.OuterStep(out, state, 1, k, q, v)
			asm.Scale(out, 1/(asm.Dot(q, z)+r.op.cfg.Eps), out)
			k = w.nothing[:d] // it has been taken up
		}
	}
}

// chunk computes a chunk by matrix products:
//
//	out = [phi(q) | tril(phi(q) phi(k)^T)] [S; v] / (phi(q).z + sum over j <= i of phi(q[i]).phi(k[j]) + eps)
//	S = S + phi(k)^T v;  z = z + sum over j of phi(k[j])
func (w *causalWork) chunk(r *causalRun, set headSet, from, to int, values []float32) {
	s := &r.op.sums
	n, d, dv, group, width := to-from, s.dim, s.valueDim, s.group(), kernel.PanelCols()
	keys := w.features(r, set, from, to)
	wide := blas32.General{Rows: n, Cols: s.leftCols(), Stride: s.leftCols(), Data: w.left}
	for i := range n {
		q := row(r.call.Q, from+i)
		for h := range (set.to - set.from) * group {
			asm.ELUPlusOne(row(wide, i)[h*(d+chunkRows):][:d], q[(set.from*group+h)*d:][:d])
		}
	}
	for g := set.from; g < set.to; g++ {
		k, right, z := mat.Columns(keys, (g-set.from)*d, d), &w.right[g-set.from], values[g*s.part+d*dv:][:d]
		w.keys.SetT(k) // [D, n]
		for j := range s.panels() {
			below := mat.Rows(right.Panel(j), d, d+n)
			v := mat.Columns(mat.Rows(r.call.V, from, to), g*dv+j*width, below.Cols)
			for i := range n {
				if r.call.seen(from + i) {
					copy(row(below, i), row(v, i))
				} else {
					clear(row(below, i))
				}
			}
		}
		for h := g * group; h < (g+1)*group; h++ {
			left := mat.Columns(wide, (h-set.from*group)*(d+chunkRows), d+n)
			q, products := mat.Columns(left, 0, d), mat.Columns(left, d, n)
			kernel.Gemm(products, q, &w.keys, nil)
			for i := range n {
				p := row(products, i)
				clear(p[i+1:])
				w.scale[i] = 1 / (asm.Dot(row(q, i), z) + asm.Sum(p[:i+1]) + r.op.cfg.Eps)
			}
			kernel.ScaleRows(left, w.scale[:n], left)
			dst := mat.Columns(mat.Rows(r.call.Dst, from, to), h*dv, dv)
			for t := 0; t < n; t += rowsTogether {
				end := min(t+rowsTogether, n)
				for j := range s.panels() {
					part := right.PanelRows(j, 0, d+end)
					_, cols := part.Dims()
					kernel.Gemm(mat.Columns(mat.Rows(dst, t, end), j*width, cols), mat.Columns(mat.Rows(left, t, end), 0, d+end), &part, nil)
				}
			}
		}
		for j := range s.panels() {
			v := right.PanelRows(j, d, d+n)
			kernel.GemmTAdd(mat.Rows(right.Panel(j), 0, d), k, &v)
		}
		for i := range n {
			asm.Add(z, z, row(k, i))
		}
	}
}

func copyRows(dst, x blas32.General) {
	for t := range x.Rows {
		copy(row(dst, t), row(x, t))
	}
}
