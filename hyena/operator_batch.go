package hyena

import (
	"context"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// batchRows is how many rows the sequences of a call have together at the most that go through
// the projections side by side, so that the weights are read once.
const batchRows = 512

// batched tells whether a call's sequences do: several, of which none is long.
func (r *operatorRun) batched() bool {
	list := r.past.layout.Segments
	return r.past.given() && len(list) > 1 && list[len(list)-1].To <= batchRows
}

// applyBatch runs the sequences of a call with states side by side.
func (r *operatorRun) applyBatch(ctx context.Context, op *Operator, call *OperatorCall, workers int) error {
	if r.project == nil {
		r.project, r.mix, r.finish = r.projectBlock, r.gateBlock, r.finishBlock
	}
	if r.projectRows == nil {
		r.projectRows = r.projectBatch
	}
	r.op, r.dst, r.x = op, call.Dst, call.X
	defer r.forget()
	dim, order, rows := op.cfg.Dim, op.cfg.Order, call.X.Rows
	wide := (order + 1) * dim
	r.shape(rows, false)
	r.uData = scratch.Floats(r.uData, rows*wide)
	r.u = mat.Of(r.uData, rows, wide)
	blocks := (rows + op.blockRows() - 1) / op.blockRows()
	for len(r.workers) < max(1, min(workers, blocks)) {
		r.workers = append(r.workers, operatorWorker{})
	}
	if err := r.group.Run(ctx, workers, blocks, r.projectRows); err != nil {
		return err
	}
	for i, st := range r.past.layout.States {
		if g := r.past.layout.Segments[i]; g.From < g.To {
			r.convolveSegment(st, g.From, g.To)
		}
	}
	for o := range op.convs {
		if o > 0 {
			r.gate = order - 1 - o
			if err := r.group.Run(ctx, workers, blocks, r.mix); err != nil {
				return err
			}
		}
		for i, st := range r.past.layout.States {
			g := r.past.layout.Segments[i]
			if g.From == g.To {
				continue
			}
			v := mat.Rows(r.v, g.From, g.To)
			if err := st.streams[o].step(ctx, &r.conv, v, v, workers); err != nil {
				return err
			}
		}
	}
	r.gate = 0
	return r.group.Run(ctx, workers, blocks, r.finish)
}

// projectBatch computes the projections of the rows of task i.
func (r *operatorRun) projectBatch(_, i int) {
	from, to := r.tokensOf(i)
	r.op.in.ForwardIn(&r.group, mat.Rows(r.u, from, to), mat.Rows(r.x, from, to))
}

// convolveSegment computes, of the projections of a sequence, the short convolution and the
// first gate, and brings its state's window up to date.
func (r *operatorRun) convolveSegment(st *State, from, to int) {
	op, w := r.op, &r.workers[0]
	dim, order := op.cfg.Dim, op.cfg.Order
	before, n, wide := op.taps-1, to-from, (order+1)*dim
	w.u = scratch.Floats(w.u, (before+n)*wide)
	u := mat.Of(w.u, before+n, wide)
	copy(w.u, st.values)
	mat.Copy(mat.Rows(u, before, u.Rows), mat.Rows(r.u, from, to))
	copy(st.values, w.u[n*wide:(before+n)*wide])
	w.last = scratch.Floats(w.last, n*dim)
	for g := range r.gates {
		op.convolveShort(mat.Rows(r.gates[g], from, to), u, g, before, w)
	}
	v, last := mat.Rows(r.v, from, to), mat.Of(w.last, n, dim)
	op.convolveShort(v, u, order, before, w)
	op.convolveShort(last, u, order-1, before, w)
	asm.Mul(v.Data[:n*dim], v.Data[:n*dim], last.Data)
}
