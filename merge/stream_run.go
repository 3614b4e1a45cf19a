package merge

import (
	"context"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// streamRun is one call of a Stream, and the memory that calls share.
type streamRun struct {
	op    *Stream
	call  StreamCall
	rows  int       // of Dst, set so far
	units []float32 // [2, MetricDim] two rows of the metric, of length 1
	own   State     // of calls without one
}

// mergePairs runs a call and returns how many rows of Dst it has set.
func (r *streamRun) mergePairs(ctx context.Context, op *Stream, call *StreamCall) (int, error) {
	r.op, r.call, r.rows = op, *call, 0
	defer func() { r.call = StreamCall{} }()
	r.units = scratch.Floats(r.units, 2*op.cfg.MetricDim)
	st := call.State
	if st == nil {
		st = &r.own
		st.fit(op)
	}
	// At about a nanosecond for an element, looks at the context are milliseconds apart.
	look := 1 + 1<<20/(1+op.cfg.Dim+op.cfg.MetricDim)
	for t := range call.X.Rows {
		if t%look == 0 {
			if err := ctx.Err(); err != nil {
				return r.rows, err
			}
		}
		r.accept(st, t)
	}
	if err := ctx.Err(); err != nil {
		return r.rows, err
	}
	if call.End && st.waiting {
		r.put(st.n-1, st.x, nil, st.size, 0)
		st.waiting = false
	}
	return r.rows, nil
}

// accept takes token t of the call: it waits, or it comes out with the one that does.
func (r *streamRun) accept(st *State, t int) {
	size := float32(1)
	if r.call.Sizes != nil {
		size = r.call.Sizes[t]
	}
	x, metric := mat.Row(r.call.X, t), mat.Row(r.call.Metric, t)
	switch {
	case !st.waiting:
		copy(st.x, x)
		copy(st.metric, metric)
		st.size = size
	case r.similar(st.metric, metric):
		r.put(st.n, st.x, x, st.size, size)
	default:
		r.put(st.n-1, st.x, nil, st.size, 0)
		r.put(st.n, x, nil, size, 0)
	}
	st.waiting = !st.waiting
	st.n++
}

// similar tells whether two rows of the metric are more similar than Above.
func (r *streamRun) similar(a, b []float32) bool {
	dim := len(a)
	ia, ib := dense.InverseLength(a), dense.InverseLength(b)
	if ia == 0 || ib == 0 {
		return false
	}
	u, v := r.units[:dim], r.units[dim:2*dim]
	asm.Scale(u, ia, a)
	asm.Scale(v, ib, b)
	return asm.Dot(u, v) > r.op.cfg.Above
}

// put writes the row of one token, or of two merged, at the place of token kept.
func (r *streamRun) put(kept int64, a, b []float32, sizeA, sizeB float32) {
	c, d, total := &r.call, mat.Row(r.call.Dst, r.rows), sizeA
	if b == nil {
		copy(d, a)
	} else {
		total = sizeA + sizeB
		clear(d)
		asm.Axpy(d, sizeA/total, a)
		asm.Axpy(d, sizeB/total, b)
	}
	if c.Total != nil {
		c.Total[r.rows] = total
	}
	if c.Kept != nil {
		c.Kept[r.rows] = kept
	}
	r.rows++
}
