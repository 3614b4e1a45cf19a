package approx

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

const (
	stripRows     = 128  // rows of E that are multiplied by keys packed once
	projectedRows = 1024 // keys of a sequence between looks at the context, a multiple of blockRows
)

// linformerRun is one call, and the memory that calls share.
type linformerRun struct {
	op      *Linformer
	call    request
	seqs    sequences
	workers parallel.Group

	first  int            // the first sequence of those that are done together
	pass   int            // the first key of each sequence that is projected now
	k, v   blas32.General // [sequences m, G D] and [sequences m, G Dv] k' and v'
	memory [2][]float32   // of k and v
	q, end []int          // where queries and projected keys of each begin, for inner
	inner  attention.Call
	kv     [2][1]blas32.General // the keys and values of inner
	work   []linformerWork      // of each worker

	strip func(worker, task int) // stripTask
}

// linformerWork is what each worker has for itself.
type linformerWork struct {
	pace  pace
	block []float32     // [blockRows, D or Dv] of keys or values, some of which are hidden
	right kernel.Matrix // the same, packed
}

// solve runs a call: some sequences together, as many as are held at a time.
func (r *linformerRun) solve(ctx context.Context, l *Linformer, call request) error {
	defer func() {
		r.call, r.seqs, r.inner, r.kv = request{}, sequences{}, attention.Call{}, [2][1]blas32.General{}
	}()
	r.op, r.call = l, call
	if err := r.call.check(&l.shape); err != nil {
		return err
	}
	if err := r.seqs.lay(&r.call, false); err != nil {
		return err
	}
	for b := range r.seqs.count() {
		if n := r.seqs.k[b+1] - r.seqs.k[b]; n > l.cfg.E.Cols {
			return check.Errorf(ErrShape, "approx: sequence %d has %d keys, want at most the columns of E = %d", b, n, l.cfg.E.Cols)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if r.strip == nil {
		r.strip = r.stripTask
	}
	together := max(1, heldWave/(l.cfg.E.Rows*(l.shape.dim+l.shape.valueDim)))
	for r.first = 0; r.first < r.seqs.count(); r.first += together {
		if err := r.attend(ctx, min(together, r.seqs.count()-r.first)); err != nil {
			return err
		}
	}
	return nil
}

// attend does count sequences.
func (r *linformerRun) attend(ctx context.Context, count int) error {
	l, s := r.op, &r.op.shape
	r.memory[0] = scratch.Floats(r.memory[0], count*l.cfg.E.Rows*s.dim)
	r.memory[1] = scratch.Floats(r.memory[1], count*l.cfg.E.Rows*s.valueDim)
	r.k, r.v = mat.Of(r.memory[0], count*l.rows, s.kvHeads*s.dim), mat.Of(r.memory[1], count*l.rows, s.kvHeads*s.valueDim)
	mat.Clear(r.k)
	mat.Clear(r.v)
	longest, q0, k0 := 0, r.seqs.q[r.first], r.seqs.k[r.first]
	r.q, r.end = append(r.q[:0], 0), append(r.end[:0], 0)
	for b := range count {
		longest = max(longest, r.seqs.k[r.first+b+1]-r.seqs.k[r.first+b])
		r.q, r.end = append(r.q, r.seqs.q[r.first+b+1]-q0), append(r.end, (b+1)*l.rows)
	}
	workers := 1
	if int64(r.seqs.k[r.first+count]-k0)*int64(l.cfg.E.Rows)*int64(s.dim+s.valueDim) > aloneWork {
		workers = parallel.Choose(l.cfg.Workers, r.call.Workers)
	}
	for len(r.work) < workers {
		r.work = append(r.work, linformerWork{})
	}
	for r.pass = 0; r.pass < longest; r.pass += projectedRows {
		if err := r.workers.RunAs(ctx, "approx", workers, count*s.kvHeads*l.strips(), r.strip); err != nil {
			return err
		}
	}
	r.kv = [2][1]blas32.General{{r.k}, {r.v}}
	rows := func(m blas32.General) blas32.General { return mat.Rows(m, q0, q0+r.q[count]) }
	r.inner = attention.Call{Dst: rows(r.call.Dst), Q: rows(r.call.Q), K: r.kv[0][:], V: r.kv[1][:], Offsets: r.q, KOffsets: r.end, Workers: r.call.Workers}
	return inner(ctx, l.last.Run(ctx, &r.inner))
}

// strips is in how many parts the rows of E of a key head are done.
func (l *Linformer) strips() int { return (l.rows + stripRows - 1) / stripRows }

// stripTask adds the keys and values of the pass to some rows of k' and v', for one head of one
// sequence.
func (r *linformerRun) stripTask(worker, task int) {
	l, s, w := r.op, &r.op.shape, &r.work[worker]
	strip, g, b := task%l.strips(), task/l.strips()%s.kvHeads, task/l.strips()/s.kvHeads
	first := r.seqs.k[r.first+b]
	from, end := first+r.pass, min(first+r.pass+projectedRows, r.seqs.k[r.first+b+1])
	w.pace.begin(&r.workers)
	row := strip * stripRows
	rows := min(stripRows, l.rows-row)
	e := mat.Rows(l.cfg.E, g*l.rows+row, g*l.rows+row+rows)
	for ; from < end && !w.pace.stopped; from += blockRows {
		to := min(from+blockRows, end)
		part := mat.Columns(e, from-first, to-from) // [rows, keys]
		into := func(m blas32.General, dim int) blas32.General {
			return mat.Columns(mat.Rows(m, b*l.rows+row, b*l.rows+row+rows), g*dim, dim)
		}
		w.right.Set(w.seen(&r.call, r.call.K, from, to, g*s.dim, s.dim))
		w.pace.gemmAdd(into(r.k, s.dim), part, &w.right)
		w.right.Set(w.seen(&r.call, r.call.V, from, to, g*s.valueDim, s.valueDim))
		w.pace.gemmAdd(into(r.v, s.valueDim), part, &w.right)
	}
}

// seen returns rows of m, of a head's columns: a part of m, or a copy in which padding is 0.
func (w *linformerWork) seen(call *request, m blas32.General, from, to, col, cols int) blas32.General {
	part := mat.Columns(mat.Rows(m, from, to), col, cols)
	if call.Valid == nil {
		return part
	}
	return shown(&w.block, part, func(i int) bool { return call.Valid[from+i] })
}
