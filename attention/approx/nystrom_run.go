package approx

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// nystromRun is one call, and the memory that calls share. Landmarks of all sequences
// stand one after the other.
type nystromRun struct {
	op      *Nystrom
	call    request
	seqs    sequences
	workers parallel.Group

	marks  []int          // [sequences+1] where the landmarks of each sequence begin
	few    []int          // [sequences+1] the same, of sequences of more tokens than landmarks alone
	q, k   blas32.General // [landmarks, H D] the landmarks; keys are repeated for each query head
	values blas32.General // [landmarks, H Dv] k3 v, and then pinv(k2) k3 v

	memory [4][]float32 // of q, k and values, and of values without gaps
	hidden hiddenKeys   // the mask of inner
	keyPos []int64      // [sequences] the first row of each
	inner  attention.Call
	kv     [2][1]blas32.General // the keys and values of inner
	tops   []float32            // [sequences, H] largest column sums, with InitOriginal
	top    float32              // the largest of them
	work   []nystromWork        // of each worker

	means, sumsOf, invert, finish func(worker, task int) // meansTask, sumsTask, invertTask and finishTask
}

// nystromWork is what each worker has for itself.
type nystromWork struct {
	pace         pace
	k2, z, kz, t []float32     // [m, m]
	x            []float32     // [m] or [G D]
	right        kernel.Matrix // the right factor of a product
}

// solve runs a call.
func (r *nystromRun) solve(ctx context.Context, n *Nystrom, call request) error {
	defer r.release()
	r.op, r.call = n, call
	if err := r.call.check(&n.shape); err != nil {
		return err
	}
	if err := r.seqs.lay(&r.call, true); err != nil {
		return err
	}
	if r.means == nil {
		r.means, r.sumsOf, r.invert, r.finish = r.meansTask, r.sumsTask, r.invertTask, r.finishTask
	}
	s := &n.shape
	r.marks, r.few = append(r.marks[:0], 0), append(r.few[:0], 0)
	for b := range r.seqs.count() {
		tokens := r.seqs.q[b+1] - r.seqs.q[b]
		m := min(tokens, n.cfg.Landmarks)
		r.marks = append(r.marks, r.marks[b]+m)
		if tokens == m {
			m = 0
		}
		r.few = append(r.few, r.few[b]+m)
	}
	marks := r.marks[r.seqs.count()]
	r.q, r.k, r.values = r.memoryAs(0, marks, s.heads*s.dim), r.memoryAs(1, marks, s.heads*s.dim), r.memoryAs(2, marks, s.heads*s.valueDim)
	workers := 1
	if int64(marks+call.Q.Rows)*int64(s.heads*(s.dim+s.valueDim))*int64(n.cfg.Landmarks) > aloneWork {
		workers = parallel.Choose(n.cfg.Workers, call.Workers)
	}
	for len(r.work) < workers {
		r.work = append(r.work, nystromWork{})
	}
	if err := r.workers.RunAs(ctx, "approx", workers, marks, r.means); err != nil {
		return err
	}
	r.kv = [2][1]blas32.General{{call.K}, {call.V}}
	r.inner = attention.Call{Dst: r.values, Q: r.q, K: r.kv[0][:], V: r.kv[1][:], Offsets: r.marks, KOffsets: r.seqs.k, LogWeights: call.LogWeights, Workers: call.Workers}
	if r.call.hides() {
		r.keyPos, r.hidden = r.keyPos[:0], hiddenKeys{&r.call, s.group()}
		for _, first := range r.seqs.k[:r.seqs.count()] {
			r.keyPos = append(r.keyPos, int64(first))
		}
		r.inner.Mask, r.inner.KeyPos = &r.hidden, r.keyPos
	}
	if err := n.last.Run(ctx, &r.inner); err != nil {
		return inner(ctx, err)
	}
	if n.cfg.Init == InitOriginal {
		r.tops = scratch.Floats(r.tops, r.seqs.count()*s.heads)
		if err := r.workers.RunAs(ctx, "approx", workers, len(r.tops), r.sumsOf); err != nil {
			return err
		}
		r.top = 0
		for _, t := range r.tops {
			r.top = max(r.top, t)
		}
	}
	if err := r.workers.RunAs(ctx, "approx", workers, r.seqs.count()*s.heads, r.invert); err != nil {
		return err
	}
	if err := r.spread(ctx); err != nil {
		return err
	}
	return r.workers.RunAs(ctx, "approx", workers, (call.Q.Rows+blockRows-1)/blockRows, r.finish)
}

func (r *nystromRun) release() {
	r.call, r.seqs, r.inner, r.hidden = request{}, sequences{}, attention.Call{}, hiddenKeys{}
	r.kv = [2][1]blas32.General{}
}

// memoryAs returns memory as a matrix.
func (r *nystromRun) memoryAs(i, rows, cols int) blas32.General {
	r.memory[i] = scratch.Floats(r.memory[i], rows*cols)
	return mat.Of(r.memory[i], rows, cols)
}

// inner makes an error of the exact attention below one of this package.
func inner(ctx context.Context, err error) error {
	if err == nil || err == ctx.Err() {
		return err
	}
	return check.Errorf(ErrCall, "approx: %v", err)
}

// hiddenKeys is a mask that hides keys that are not there, and those whose log-weight is -Inf:
// added to a logit of NaN it would not. Positions are rows of the call.
type hiddenKeys struct {
	call  *request
	group int // query heads of a key head
}

func (h *hiddenKeys) Hide(s blas32.General, head int, _, key int64) {
	for j := range s.Cols {
		seen := h.call.seenBy(int(key)+j, head/h.group)
		for i := 0; !seen && i < s.Rows; i++ {
			s.Data[i*s.Stride+j] = negInf
		}
	}
}

func (h *hiddenKeys) Sight(head int, _, key int64, _, keys int) attention.Sight {
	seen := 0
	for j := range keys {
		if h.call.seenBy(int(key)+j, head/h.group) {
			seen++
		}
	}
	switch seen {
	case 0:
		return attention.None
	case keys:
		return attention.All
	}
	return attention.Some
}

// segment returns the tokens of segment i of m of a sequence of n: the first ones
// have n/m, the others one more.
func segment(n, m, i int) (from, to int) {
	short, each := m-n%m, n/m
	at := func(i int) int { return i*each + max(0, i-short) }
	return at(i), at(i + 1)
}

// meansTask makes one landmark of queries and one of keys, for all heads.
func (r *nystromRun) meansTask(worker, mark int) {
	s, w := &r.op.shape, &r.work[worker]
	w.pace.begin(&r.workers)
	b := find(r.marks, mark)
	first := r.seqs.q[b]
	from, to := segment(r.seqs.q[b+1]-first, r.marks[b+1]-r.marks[b], mark-r.marks[b])
	from, to = first+from, first+to
	q, k := mat.Row(r.q, mark), mat.Row(r.k, mark)
	exact := r.few[b+1] == r.few[b] // the landmarks are the queries
	clear(q)
	w.x = scratch.Floats(w.x, s.kvHeads*s.dim)
	clear(w.x)
	step := s.kvHeads // key heads that have the same weights
	if r.call.LogWeights.Cols > 1 {
		step = 1
	}
	for g := 0; g < s.kvHeads; g += step {
		q, k := q[g*s.group()*s.dim:][:step*s.group()*s.dim], w.x[g*s.dim:][:step*s.dim]
		top := negInf // so that no weight overflows
		for j := from; r.call.weighted() && j < to; j++ {
			top = max(top, r.call.logWeight(j, g))
		}
		if r.call.weighted() && top == negInf && !exact {
			continue // hidden, all of them
		}
		var total float64
		for j := from; j < to && !w.pace.stop(elsewhere*(len(q)+len(k))); j++ {
			weight := float32(1)
			if top != negInf { // otherwise there are no weights
				weight = float32(math.Exp(float64(r.call.logWeight(j, g) - top)))
			}
			total += float64(weight)
			if weight != 0 && (r.call.Valid == nil || r.call.Valid[j]) {
				asm.Axpy(q, weight, mat.Row(r.call.Q, j)[g*s.group()*s.dim:][:len(q)])
				asm.Axpy(k, weight, mat.Row(r.call.K, j)[g*s.dim:][:len(k)])
			}
		}
		if total != 0 {
			asm.Scale(q, float32(1/total), q)
			asm.Scale(k, float32(1/total), k)
		}
	}
	for h := range s.heads {
		copy(k[h*s.dim:][:s.dim], w.x[h/s.group()*s.dim:])
	}
}

// kernel2 sets w.k2 to softmax(Scale q' k'^T) of a head, and returns it with its
// largest column sum; m is 0 for sequences that are attended to exactly.
func (r *nystromRun) kernel2(w *nystromWork, task int) (k2 blas32.General, top float32) {
	s := &r.op.shape
	w.pace.begin(&r.workers)
	b, h := task/s.heads, task%s.heads
	m := r.few[b+1] - r.few[b]
	if m == 0 {
		return
	}
	w.k2 = scratch.Floats(w.k2, m*m)
	k2 = mat.Of(w.k2, m, m)
	of := func(x blas32.General) blas32.General {
		return mat.Columns(mat.Rows(x, r.marks[b], r.marks[b+1]), h*s.dim, s.dim)
	}
	w.right.SetT(of(r.k))
	w.pace.gemm(k2, of(r.q), &w.right)
	w.x = scratch.Floats(w.x, m)
	clear(w.x)
	for i := 0; i < m && !w.pace.stop(4*elsewhere*m); i++ {
		asm.Scale(mat.Row(k2, i), r.op.cfg.Scale, mat.Row(k2, i))
		asm.Softmax(mat.Row(k2, i), mat.Row(k2, i))
		asm.Add(w.x, w.x, mat.Row(k2, i))
	}
	return k2, asm.Max(w.x)
}

func (r *nystromRun) sumsTask(worker, task int) {
	_, r.tops[task] = r.kernel2(&r.work[worker], task)
}

// invertTask multiplies the values of a head by pinv(k2).
func (r *nystromRun) invertTask(worker, task int) {
	s, w := &r.op.shape, &r.work[worker]
	k2, top := r.kernel2(w, task)
	if k2.Rows == 0 {
		return
	}
	if r.op.cfg.Init == InitOriginal {
		top = r.top
	}
	m := k2.Rows
	z := w.inverse(k2, top, r.op.cfg.Iterations)
	b, h := task/s.heads, task%s.heads
	v := mat.Columns(mat.Rows(r.values, r.marks[b], r.marks[b+1]), h*s.valueDim, s.valueDim)
	w.right.Set(v)
	w.t = scratch.Floats(w.t, m*max(m, s.valueDim))
	t := mat.Of(w.t, m, s.valueDim)
	w.pace.gemm(t, z, &w.right)
	mat.Copy(v, t)
}

// inverse returns the pseudo-inverse of k2 by Newton-Schulz-like iteration.
func (w *nystromWork) inverse(k2 blas32.General, top float32, iterations int) blas32.General {
	m := k2.Rows
	w.z, w.kz, w.t = scratch.Floats(w.z, m*m), scratch.Floats(w.kz, m*m), scratch.Floats(w.t, m*m)
	z, kz, t := mat.Of(w.z, m, m), mat.Of(w.kz, m, m), mat.Of(w.t, m, m)
	for i := 0; i < m && !w.pace.stop(elsewhere*m); i++ {
		for j := range m {
			z.Data[i*m+j] = k2.Data[j*m+i] / top
		}
	}
	// minus sets x = a I - x.
	minus := func(a float32, x blas32.General) {
		asm.Scale(x.Data, -1, x.Data)
		for i := range m {
			x.Data[i*m+i] += a
		}
	}
	for i := 0; i < iterations && !w.pace.stopped; i++ {
		w.right.Set(z)
		w.pace.gemm(kz, k2, &w.right)
		copy(t.Data, kz.Data)
		minus(7, t)
		for _, a := range [...]float32{15, 13} {
			w.right.Set(t)
			w.pace.gemm(t, kz, &w.right)
			minus(a, t)
		}
		w.right.Set(t)
		w.pace.gemm(t, z, &w.right)
		asm.Scale(z.Data, 0.25, t.Data)
	}
	return z
}

// spread is k1 times what the values have become. Sequences that are attended to
// exactly have no landmarks here; finish takes their values as they are.
func (r *nystromRun) spread(ctx context.Context) error {
	k, v := r.k, r.values
	count := r.seqs.count()
	if r.few[count] != r.marks[count] { // close the gaps
		k, v = r.memoryAs(1, r.few[count], k.Cols), r.memoryAs(3, r.few[count], v.Cols)
		for b := range count {
			for i := range r.few[b+1] - r.few[b] {
				copy(mat.Row(k, r.few[b]+i), mat.Row(r.k, r.marks[b]+i))
				copy(mat.Row(v, r.few[b]+i), mat.Row(r.values, r.marks[b]+i))
			}
		}
	}
	r.kv = [2][1]blas32.General{{k}, {v}}
	r.inner = attention.Call{Dst: r.call.Dst, Q: r.call.Q, K: r.kv[0][:], V: r.kv[1][:], Offsets: r.seqs.q, KOffsets: r.few, Workers: r.call.Workers}
	return inner(ctx, r.op.first.Run(ctx, &r.inner))
}

// finishTask writes the rows of Dst that exact attention to landmarks does not,
// and adds the convolution.
func (r *nystromRun) finishTask(worker, task int) {
	s, p := &r.op.shape, &r.work[worker].pace
	p.begin(&r.workers)
	from, to := task*blockRows, min((task+1)*blockRows, r.call.Q.Rows)
	for b := find(r.seqs.q, from); from < to; b++ {
		end := min(to, r.seqs.q[b+1])
		if r.few[b+1] == r.few[b] {
			at := r.marks[b] + from - r.seqs.q[b]
			mat.Copy(mat.Rows(r.call.Dst, from, end), mat.Rows(r.values, at, at+end-from))
		} else if r.call.Valid != nil {
			r.padding(p, b, from, end)
		}
		for h := 0; r.op.cfg.Conv.Cols > 0 && h < s.heads; h++ {
			r.convolve(p, b, h, from, end)
		}
		from = end
	}
}

// padding gives rows of padding the result of a query of 0, which is the mean
// over the landmarks.
func (r *nystromRun) padding(p *pace, b, from, to int) {
	m := r.few[b+1] - r.few[b]
	var mean []float32
	for i := from; i < to; i++ {
		if r.call.Valid[i] {
			continue
		}
		dst := mat.Row(r.call.Dst, i)
		if mean != nil {
			copy(dst, mean)
			continue
		}
		clear(dst)
		for j := 0; j < m && !p.stop(elsewhere*len(dst)); j++ {
			asm.Axpy(dst, 1/float32(m), mat.Row(r.values, r.marks[b]+j))
		}
		mean = dst
	}
}

// convolve adds the convolution of the values of a head to rows from up to to.
func (r *nystromRun) convolve(p *pace, b, h, from, to int) {
	s := &r.op.shape
	taps := mat.Row(r.op.cfg.Conv, h)
	first, end := r.seqs.q[b], r.seqs.q[b+1]
	for i := from; i < to && !p.stop(elsewhere*len(taps)*s.valueDim); i++ {
		dst := mat.Row(r.call.Dst, i)[h*s.valueDim:][:s.valueDim]
		for t, w := range taps {
			j := i + t - len(taps)/2
			if j < first || j >= end || r.call.Valid != nil && !r.call.Valid[j] {
				continue
			}
			asm.Axpy(dst, w, mat.Row(r.call.V, j)[h/s.group()*s.valueDim:][:s.valueDim])
		}
	}
}
