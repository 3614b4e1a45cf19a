package hyena

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// operatorRun is the working memory of a call of Operator.
type operatorRun struct {
	group    parallel.Group
	op       *Operator
	dst, x   blas32.General   // [tokens, Dim], of the call
	v        blas32.General   // [tokens, Dim], what is gated and convolved: dst, where there is no state
	vData    []float32        // of v, else
	before   blas32.General   // [tasks (taps-1), Dim], the inputs before each task, which v overwrites
	edges    []float32        // of before
	whole    bool             // v is dst
	gates    []blas32.General // x0 ... x(N-2), [tokens, Dim] each
	gateData []float32        // of gates, one after the other
	gate     int              // which of them is next
	workers  []operatorWorker
	past     pasts
	st       *State         // that the sequence goes on from, or nil
	window   []float32      // [taps-1, (Order+1) Dim], the last projections of the call, for st
	conv     convRun        // of st's streams
	u        blas32.General // [rows, (Order+1) Dim], projections of a batch
	uData    []float32      // of u

	// The tasks, as values that are made once.
	project, mix, finish, projectRows func(worker, i int)
}

// operatorWorker is what each worker has for itself.
type operatorWorker struct {
	u    []float32 // [block and the tokens before, (Order+1) Dim], projections
	last []float32 // [block, Dim], x(N-1)
	all  []float32 // [block and the tokens before, Dim], near the beginning
}

// apply runs a call that has been checked.
func (r *operatorRun) apply(ctx context.Context, op *Operator, dst, x blas32.General, st *State, workers int) error {
	if r.project == nil {
		r.project, r.mix, r.finish = r.projectBlock, r.gateBlock, r.finishBlock
	}
	r.op, r.dst, r.x, r.st = op, dst, x, st
	defer r.forget()
	order := op.cfg.Order
	r.shape(x.Rows, st == nil)
	blocks := (x.Rows + op.blockRows() - 1) / op.blockRows()
	for len(r.workers) < min(workers, blocks) {
		r.workers = append(r.workers, operatorWorker{})
	}
	if st != nil {
		r.window = scratch.Floats(r.window, len(st.values))
	}
	if err := r.group.Run(ctx, workers, blocks, r.project); err != nil {
		return err
	}
	if st != nil {
		copy(st.values, r.window)
	}
	for o, conv := range op.convs {
		if o > 0 {
			r.gate = order - 1 - o
			if err := r.group.Run(ctx, workers, blocks, r.mix); err != nil {
				return err
			}
		}
		var err error
		if st != nil {
			err = st.streams[o].step(ctx, &r.conv, r.v, r.v, workers)
		} else {
			err = conv.Run(ctx, &ConvCall{Dst: r.v, X: r.v, Workers: workers})
		}
		if err != nil {
			return err
		}
	}
	r.gate = 0
	return r.group.Run(ctx, workers, blocks, r.finish)
}

// forget drops what is the caller's.
func (r *operatorRun) forget() {
	r.op, r.dst, r.x, r.st = nil, blas32.General{}, blas32.General{}, nil
	if r.whole {
		r.v = blas32.General{}
	}
}

// shape makes room for v and the gates of some rows. whole says that they are all of a
// sequence's: v then takes no memory but dst, which may be x, for each task has read its inputs
// when it writes, and finds those before it in a copy.
func (r *operatorRun) shape(rows int, whole bool) {
	dim, order := r.op.cfg.Dim, r.op.cfg.Order
	if r.whole = whole; whole {
		r.v = r.dst
		r.keepEdges(rows)
	} else {
		r.vData = scratch.Floats(r.vData, rows*dim)
		r.v = mat.Of(r.vData, rows, dim)
	}
	r.gateData = scratch.Floats(r.gateData, (order-1)*rows*dim)
	r.gates = r.gates[:0]
	for i := range order - 1 {
		r.gates = append(r.gates, mat.Of(r.gateData[i*rows*dim:], rows, dim))
	}
}

// keepEdges copies the inputs before each task.
func (r *operatorRun) keepEdges(rows int) {
	n, block := r.op.taps-1, r.op.blockRows()
	tasks := (rows + block - 1) / block
	r.edges = scratch.Floats(r.edges, tasks*n*r.op.cfg.Dim)
	r.before = mat.Of(r.edges, tasks*n, r.op.cfg.Dim)
	for i := 1; i < tasks; i++ {
		from := max(i*block-n, 0)
		mat.Copy(mat.Rows(r.before, i*n, i*n+i*block-from), mat.Rows(r.x, from, i*block))
	}
}

// blockRows is how many tokens a task has. It is a multiple of every tier's tile, and
// smaller where a token is wide, so that the context is looked at in time.
func (op *Operator) blockRows() int {
	const tile = 48
	return max(tile, dense.BlockRows*min(op.cfg.Dim, 1024)/op.cfg.Dim/tile*tile)
}

// tokensOf returns the tokens of task i.
func (r *operatorRun) tokensOf(i int) (from, to int) {
	n := r.op.blockRows()
	return i * n, min((i+1)*n, r.x.Rows)
}

// projectBlock computes, for the tokens of task i, the projections, their short
// convolution and the first gate.
func (r *operatorRun) projectBlock(worker, i int) {
	op, w := r.op, &r.workers[worker]
	dim, order := op.cfg.Dim, op.cfg.Order
	from, to := r.tokensOf(i)
	// The short convolution sees the taps-1 tokens before the block; near the
	// beginning, all there are, and those that the state has.
	before, own := min(op.taps-1, from), 0
	if r.st != nil {
		own = op.taps - 1 - before
	}
	rows, wide := own+before+to-from, (order+1)*dim
	w.u = scratch.Floats(w.u, rows*wide)
	u := mat.Of(w.u, rows, wide)
	if own > 0 {
		copy(w.u, r.st.values[len(r.st.values)-own*wide:])
	}
	if r.whole && before > 0 {
		op.in.ForwardIn(&r.group, mat.Rows(u, 0, before), mat.Rows(r.before, i*(op.taps-1), i*(op.taps-1)+before))
		op.in.ForwardIn(&r.group, mat.Rows(u, before, rows), mat.Rows(r.x, from, to))
	} else {
		op.in.ForwardIn(&r.group, mat.Rows(u, own, rows), mat.Rows(r.x, from-before, to))
	}
	if before += own; r.st != nil && to == r.x.Rows {
		copy(r.window, w.u[(rows-before)*wide:rows*wide])
	}
	w.last, w.all = scratch.Floats(w.last, rows*dim), scratch.Floats(w.all, rows*dim)
	for g := range r.gates {
		op.convolveShort(mat.Rows(r.gates[g], from, to), u, g, before, w) // x0 ... x(N-2)
	}
	v := mat.Rows(r.v, from, to)
	op.convolveShort(v, u, order, before, w) // v
	last := mat.Of(w.last, to-from, dim)
	op.convolveShort(last, u, order-1, before, w) // x(N-1)
	multiply(v, last)
}

// multiply sets the rows of v to their products with those of gates.
func multiply(v, gates blas32.General) {
	for t := range v.Rows {
		asm.Mul(mat.Row(v, t), mat.Row(v, t), mat.Row(gates, t))
	}
}

// convolveShort sets dst to the short convolution of chunk number chunk of the
// projections u, whose first rows are only seen.
func (op *Operator) convolveShort(dst, u blas32.General, chunk, before int, w *operatorWorker) {
	dim := op.cfg.Dim
	u = mat.Columns(u, chunk*dim, dim)
	taps, bias := mat.Columns(op.short, chunk*dim, dim), op.bias[chunk*dim:][:dim]
	if before == op.taps-1 {
		var history blas32.General
		if before > 0 {
			history = mat.Rows(u, 0, before)
		}
		asm.DepthwiseConv(dst, mat.Rows(u, before, u.Rows), taps, bias, history)
		return
	}
	all := mat.Of(w.all, u.Rows, dim)
	asm.DepthwiseConv(all, u, taps, bias, blas32.General{})
	mat.Copy(dst, mat.Rows(all, before, u.Rows))
}

// gateBlock gates v for the tokens of task i.
func (r *operatorRun) gateBlock(_, i int) {
	from, to := r.tokensOf(i)
	multiply(mat.Rows(r.v, from, to), mat.Rows(r.gates[r.gate], from, to))
}

// finishBlock gates v for the last time, activates and projects it.
func (r *operatorRun) finishBlock(worker, i int) {
	r.gateBlock(worker, i)
	from, to := r.tokensOf(i)
	v := mat.Rows(r.v, from, to)
	if r.op.cfg.Activation != Identity {
		for t := range v.Rows {
			r.op.cfg.Activation.activate(mat.Row(v, t))
		}
	}
	if r.whole {
		w := &r.workers[worker]
		w.last = scratch.Floats(w.last, v.Rows*v.Cols)
		own := mat.Of(w.last, v.Rows, v.Cols)
		mat.Copy(own, v)
		v = own
	}
	r.op.out.ForwardIn(&r.group, mat.Rows(r.dst, from, to), v)
}
