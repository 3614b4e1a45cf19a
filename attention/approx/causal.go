package approx

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/dense"
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

	head func(worker, task int)
}

// causalWork is what each worker has for itself.
type causalWork struct {
	k       []float32 // phi(k) of a chunk [C, D]
	left    []float32 // of a query head [C, D+C]: phi(q), and its products with phi(k)
	scale   []float32
	value   []float32 // of one token
	keys    asm.Matrix
	right   asm.Matrix // [D+C, Dv]: S, and a chunk's values below it
	nothing []float32
}

func (l *Linear) causalBytes() int64 {
	s := &l.sums
	d, dv := int64(s.dim), int64(s.valueDim)
	each := chunkRows*(2*d+chunkRows+1) + d*(chunkRows+maxPanel) + (d+chunkRows)*(dv+maxPanel) + 2*(d+dv) + 128
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
	if r.head == nil {
		r.head = r.headTask
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
		if err := r.group.Run(ctx, workers, r.seqs.count()*s.kvHeads, r.head); err != nil {
			return wrap(ctx, err)
		}
	}
	if call.State != nil {
		call.State.advance(r.values, call.Q.Rows)
	}
	return nil
}

// headTask takes one key head of one sequence through the rows of the pass.
func (r *causalRun) headTask(worker, task int) {
	s, w := &r.op.sums, &r.work[worker]
	b, g := task/s.kvHeads, task%s.kvHeads
	from := r.seqs.q[b] + r.pass
	to := min(from+passRows, r.seqs.q[b+1])
	if from >= to {
		return
	}
	own := r.values[task*s.part:][:s.part]
	state, z := dense.Matrix(own, s.dim, s.valueDim), own[s.dim*s.valueDim:]
	w.k, w.scale, w.value = scratch.Floats(w.k, chunkRows*s.dim), scratch.Floats(w.scale, chunkRows), scratch.Floats(w.value, max(s.valueDim, s.dim))
	w.left = scratch.Floats(w.left, chunkRows*(s.dim+chunkRows))
	if to-from <= fewRows {
		for t := from; t < to; t++ {
			w.token(r, g, t, state, z)
		}
		return
	}
	w.right.Reshape(s.dim+chunkRows, s.valueDim)
	for j := range w.panels(s) {
		copyRows(dense.Rows(w.right.Panel(j), 0, s.dim), dense.Columns(state, j*asm.PanelCols(), w.right.Panel(j).Cols))
	}
	for ; from < to; from += chunkRows {
		w.chunk(r, g, from, min(from+chunkRows, to), z)
	}
	for j := range w.panels(s) {
		copyRows(dense.Columns(state, j*asm.PanelCols(), w.right.Panel(j).Cols), dense.Rows(w.right.Panel(j), 0, s.dim))
	}
}

func (w *causalWork) panels(s *sums) int { return (s.valueDim + asm.PanelCols() - 1) / asm.PanelCols() }

// features sets w.k to s phi(k) of the rows, 0 where they are hidden.
func (w *causalWork) features(r *causalRun, g, from, to int) blas32.General {
	d := r.op.sums.dim
	e := dense.Matrix(w.k, to-from, d)
	for i := range e.Rows {
		if !r.call.seen(from + i) {
			clear(row(e, i))
			continue
		}
		asm.ELUPlusOne(row(e, i), row(r.call.K, from+i)[g*d:][:d])
	}
	if weighted(&r.call) {
		s := w.scale[:e.Rows]
		for i := range s {
			s[i] = 0
			if r.call.seen(from + i) {
				s[i] = r.call.logWeight(from+i, g)
			}
		}
		asm.Exp(s, s)
		asm.ScaleRows(e, s, e)
	}
	return e
}

// token is the recurrence, one token at a time:
//
//	S = S + phi(k) v^T;  z = z + phi(k);  out = phi(q) S / (phi(q).z + eps)
func (w *causalWork) token(r *causalRun, g, t int, state blas32.General, z []float32) {
	s := &r.op.sums
	d, dv := s.dim, s.valueDim
	k := row(w.features(r, g, t, t+1), 0)
	v := w.value[:dv]
	clear(v)
	if r.call.seen(t) {
		copy(v, row(r.call.V, t)[g*dv:])
	}
	asm.Add(z, z, k)
	q := w.left[:d]
	for h := g * s.group(); h < (g+1)*s.group(); h++ {
		asm.ELUPlusOne(q, row(r.call.Q, t)[h*d:][:d])
		out := row(r.call.Dst, t)[h*dv:][:dv]
		asm.OuterStep(out, state, 1, k, q, v)
		asm.Scale(out, 1/(asm.Dot(q, z)+r.op.cfg.Eps), out)
		k = w.nothingOf(d) // it has been taken up
	}
}

func (w *causalWork) nothingOf(n int) []float32 {
	if len(w.nothing) < n {
		w.nothing = make([]float32, n)
	}
	return w.nothing[:n]
}

// chunk computes a chunk by matrix products:
//
//	out = [phi(q) | tril(phi(q) phi(k)^T)] [S; v] / (phi(q).z + sum over j <= i of phi(q[i]).phi(k[j]) + eps)
//	S = S + phi(k)^T v;  z = z + sum over j of phi(k[j])
func (w *causalWork) chunk(r *causalRun, g, from, to int, z []float32) {
	s := &r.op.sums
	n, d, dv, width := to-from, s.dim, s.valueDim, asm.PanelCols()
	k := w.features(r, g, from, to)
	w.keys.SetT(k) // [D, n]
	for j := range w.panels(s) {
		below := dense.Rows(w.right.Panel(j), d, d+n)
		v := dense.Columns(dense.Rows(r.call.V, from, to), g*dv+j*width, below.Cols)
		for i := range n {
			if r.call.seen(from + i) {
				copy(row(below, i), row(v, i))
			} else {
				clear(row(below, i))
			}
		}
	}
	left := dense.Matrix(w.left, n, d+n)
	q, products := dense.Columns(left, 0, d), dense.Columns(left, d, n)
	dst := dense.Rows(r.call.Dst, from, to)
	for h := g * s.group(); h < (g+1)*s.group(); h++ {
		for i := range n {
			asm.ELUPlusOne(row(q, i), row(r.call.Q, from+i)[h*d:][:d])
		}
		asm.Gemm(products, q, &w.keys, nil)
		for i := range n {
			p := row(products, i)
			clear(p[i+1:])
			w.scale[i] = 1 / (asm.Dot(row(q, i), z) + asm.Sum(p[:i+1]) + r.op.cfg.Eps)
		}
		asm.ScaleRows(left, w.scale[:n], left)
		for t := 0; t < n; t += rowsTogether {
			end := min(t+rowsTogether, n)
			for j := range w.panels(s) {
				right := w.right.PanelRows(j, 0, d+end)
				_, cols := right.Dims()
				asm.Gemm(dense.Columns(dense.Rows(dst, t, end), h*dv+j*width, cols), dense.Columns(dense.Rows(left, t, end), 0, d+end), &right, nil)
			}
		}
	}
	for j := range w.panels(s) {
		v := w.right.PanelRows(j, d, d+n)
		asm.GemmTAdd(dense.Rows(w.right.Panel(j), 0, d), k, &v)
	}
	for i := range n {
		asm.Add(z, z, row(k, i))
	}
}

func copyRows(dst, x blas32.General) {
	for t := range x.Rows {
		copy(row(dst, t), row(x, t))
	}
}
