package mla

import (
	"context"
	"errors"
	"sync/atomic"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/pack"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// run is the working memory of a call, and the call itself. Matrices have a row for
// each token; H is Heads, N NopeDim, R RopeDim, L KVRank, V ValueDim.
type run struct {
	m     *MLA
	call  Call
	batch pack.Layout[*attention.State]
	owned func(name string, s *attention.State) error

	group           parallel.Group
	project, finish func(worker, task int)
	failed          atomic.Pointer[error] // the first error of a task

	floats []float32      // of the matrices below
	qa     blas32.General // [tokens, QRank], the normed half-way of the queries
	q      blas32.General // [tokens, H (N+R)], queries, their last R turned
	qr     blas32.General // [tokens, H R], those R while they are turned
	kv     blas32.General // [tokens, L+R], the normed latent and the turned key: what a state keeps
	r      blas32.General // [tokens, R], the key while it is turned
	kvb    blas32.General // [tokens, H (N+V)], of the naive form: keys and values as KVB gives them
	k      blas32.General // [tokens, H (N+R)], of the naive form
	v      blas32.General // [tokens, H V], values of the naive form; [tokens, H L], sums of latents of the absorbed
	ql     blas32.General // [tokens, H (L+R)], queries of the latent, of the absorbed form
	out    blas32.General // [tokens, H V], what Out takes
	at     []int64        // position of each token

	inner   attention.Call
	one     [2]blas32.General // keys and values of inner
	offsets []int             // of inner
	pasts   []attention.Past  // of inner
}

// stepping tells the absorbed form, which has states, from the naive one.
func (r *run) stepping() bool { return r.call.State != nil || r.call.States != nil }

// forward takes the tokens through the layers before attention, attention, and the last
// layer.
func (r *run) forward(ctx context.Context) error {
	m, x := r.m, r.call.X
	if x.Rows == 0 {
		return ctx.Err()
	}
	if r.project == nil {
		r.project, r.finish = r.projectTask, r.finishTask
	}
	r.reserve()
	r.place()
	r.failed.Store(nil)
	workers, tasks := parallel.Choose(m.cfg.Workers, r.call.Workers), (x.Rows+taskRows-1)/taskRows
	if err := r.group.RunAs(ctx, "mla", workers, tasks, r.project); err != nil {
		return err
	}
	if err := r.failed.Load(); err != nil {
		return check.Errorf(attention.ErrCall, "mla: %v", *err)
	}
	op := m.naive
	r.inner = attention.Call{Dst: r.out, Q: r.q, Offsets: r.offsets, Prefill: true, Workers: r.call.Workers}
	if r.stepping() {
		op = m.latent
		r.one[0] = r.kv
		r.inner.Dst, r.inner.Q, r.inner.States = r.v, r.ql, r.pasts
	} else {
		r.one = [2]blas32.General{r.k, r.v}
		r.inner.V = r.one[1:]
	}
	r.inner.K = r.one[:1]
	if err := op.Run(ctx, &r.inner); err != nil {
		return err
	}
	if err := r.group.RunAs(ctx, "mla", workers, tasks, r.finish); err != nil {
		r.takeBack()
		return err
	}
	return nil
}

// takeBack has the states stand where they did before a call that failed in the last
// layer. A ring that took up more than it can take back keeps what it has: its Len
// tells.
func (r *run) takeBack() {
	for b, s := range r.batch.States {
		x := r.batch.Segments[b]
		if n := s.Len() - (x.To - x.From); s.Truncate(n) != nil {
			continue
		}
	}
}

// place finds the position of each token, and says the batch in attention's words.
func (r *run) place() {
	r.at, r.offsets, r.pasts = r.at[:0], append(r.offsets[:0], 0), r.pasts[:0]
	for b, x := range r.batch.Segments {
		first := 0
		if r.stepping() {
			s := r.batch.States[b]
			first = s.Len()
			r.pasts = append(r.pasts, s)
		}
		for i := range x.To - x.From {
			r.at = append(r.at, int64(first+i))
		}
		r.offsets = append(r.offsets, x.To)
	}
}

// taskRows is how many tokens a task takes through the layers.
const taskRows = 48

// reserve shapes the buffers of a call.
func (r *run) reserve() {
	c, n := &r.m.cfg, r.call.X.Rows
	naive := !r.stepping()
	only := func(cols int, wanted bool) int {
		if wanted {
			return cols
		}
		return 0
	}
	list := [...]struct {
		m    *blas32.General
		cols int
	}{
		{&r.qa, c.QRank}, {&r.q, c.Heads * (c.NopeDim + c.RopeDim)}, {&r.qr, c.Heads * c.RopeDim},
		{&r.kv, c.KVRank + c.RopeDim}, {&r.r, c.RopeDim}, {&r.out, c.Heads * c.ValueDim},
		{&r.kvb, only(c.Heads*(c.NopeDim+c.ValueDim), naive)}, {&r.k, only(c.Heads*(c.NopeDim+c.RopeDim), naive)},
		{&r.v, c.Heads * max(only(c.ValueDim, naive), only(c.KVRank, !naive))}, // values, or sums of latents
		{&r.ql, only(c.Heads*(c.KVRank+c.RopeDim), !naive)},
	}
	total := 0
	for _, x := range list {
		total += n * x.cols
	}
	r.floats = scratch.Floats(r.floats, total)
	at := 0
	for _, x := range list {
		*x.m = mat.Of(r.floats[at:], n, x.cols)
		at += n * x.cols
	}
}

// projectTask takes some tokens to queries, keys and values.
func (r *run) projectTask(_, task int) {
	m, c := r.m, &r.m.cfg
	from := task * taskRows
	n := min(taskRows, r.call.X.Rows-from)
	of := func(x blas32.General) blas32.General { return mat.Rows(x, from, from+n) }
	x, q, kv := of(r.call.X), of(r.q), of(r.kv)
	if c.QRank > 0 {
		qa := of(r.qa)
		m.qa.ForwardIn(&r.group, qa, x)
		for i := range n {
			row := mat.Row(qa, i)
			asm.RMSNorm(row, row, m.qNorm, float32(c.Eps))
		}
		m.qb.ForwardIn(&r.group, q, qa)
	} else {
		m.qb.ForwardIn(&r.group, q, x)
	}
	m.kva.ForwardIn(&r.group, kv, x)
	at := r.at[from : from+n]
	if err := errors.Join(r.turn(q, of(r.qr), at, c.Heads, c.NopeDim+c.RopeDim, c.NopeDim), r.turn(kv, of(r.r), at, 1, 0, c.KVRank)); err != nil {
		r.fail(err)
		return
	}
	for i := range n {
		row := mat.Part(kv, i, 0, c.KVRank)
		asm.RMSNorm(row, row, m.kvNorm, float32(c.Eps))
	}
	if !r.stepping() {
		r.expand(of(r.kvb), of(r.k), of(r.v), kv)
		return
	}
	// Absorbed: the query of the latent.
	ql, width := of(r.ql), c.KVRank+c.RopeDim
	for h := range c.Heads {
		nope := mat.Columns(q, h*(c.NopeDim+c.RopeDim), c.NopeDim)
		asm.Gemm(mat.Columns(ql, h*width, c.KVRank), nope, m.keys[h], nil)
		for i := range n {
			copy(mat.Part(ql, i, h*width+c.KVRank, c.RopeDim), mat.Part(q, i, h*(c.NopeDim+c.RopeDim)+c.NopeDim, c.RopeDim))
		}
	}
}

// fail keeps the first error.
func (r *run) fail(err error) { r.failed.CompareAndSwap(nil, &err) }

// turn rotates RopeDim features of each head of x, which stand at a column of the head's
// width, to their positions at, by way of y.
func (r *run) turn(x, y blas32.General, at []int64, heads, width, column int) error {
	dim := r.m.cfg.RopeDim
	for i := range x.Rows {
		for h := range heads {
			copy(mat.Part(y, i, h*dim, dim), mat.Part(x, i, h*width+column, dim))
		}
	}
	if err := r.m.rotation.RotateAt(y, at); err != nil {
		return err
	}
	for i := range x.Rows {
		for h := range heads {
			copy(mat.Part(x, i, h*width+column, dim), mat.Part(y, i, h*dim, dim))
		}
	}
	return nil
}

// expand makes the keys and values of all heads.
func (r *run) expand(kvb, k, v, kv blas32.General) {
	m, c := r.m, &r.m.cfg
	m.kvb.ForwardIn(&r.group, kvb, mat.Columns(kv, 0, c.KVRank))
	for i := range kvb.Rows {
		for h := range c.Heads {
			x := mat.Part(kvb, i, h*(c.NopeDim+c.ValueDim), c.NopeDim+c.ValueDim)
			key := mat.Part(k, i, h*(c.NopeDim+c.RopeDim), c.NopeDim+c.RopeDim)
			copy(key, x[:c.NopeDim])
			copy(key[c.NopeDim:], mat.Part(kv, i, c.KVRank, c.RopeDim))
			copy(mat.Part(v, i, h*c.ValueDim, c.ValueDim), x[c.NopeDim:])
		}
	}
}

// finishTask takes some tokens through the last layer, latents to values before it.
func (r *run) finishTask(_, task int) {
	m, c := r.m, &r.m.cfg
	from := task * taskRows
	n := min(taskRows, r.call.X.Rows-from)
	out := mat.Rows(r.out, from, from+n)
	if r.stepping() {
		sums := mat.Rows(r.v, from, from+n)
		for h := range c.Heads {
			asm.Gemm(mat.Columns(out, h*c.ValueDim, c.ValueDim), mat.Columns(sums, h*c.KVRank, c.KVRank), m.values[h], nil)
		}
	}
	m.o.ForwardIn(&r.group, mat.Rows(r.call.Dst, from, from+n), out)
}
