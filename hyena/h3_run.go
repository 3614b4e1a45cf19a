package hyena

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/pack"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// H3Call is a call of H3 with everything optional.
type H3Call struct {
	// Dst, Q, K and V are [tokens, H P]; Dst may be Q.
	Dst, Q, K, V blas32.General
	// Offsets packs several sequences into one call: the first row of each and at last the
	// number of rows.
	Offsets []int
	// State is where the sequence goes on from, and is brought up to date. States has a state
	// for each sequence; without Offsets each is for one row.
	State  *State
	States []*State
	// Workers is how many goroutines the call may use, 0 for the Config's.
	Workers int
}

// Forward runs a whole sequence: all are [tokens, H P]. dst may be q. Errors match ErrShape.
func (op *H3) Forward(dst, q, k, v blas32.General) error {
	return op.Run(context.Background(), &H3Call{Dst: dst, Q: q, K: k, V: v})
}

// Step runs the next tokens, one or many, after those the state has seen. Errors match
// ErrShape, ErrState or ErrFull.
func (op *H3) Step(dst, q, k, v blas32.General, st *State) error {
	if err := op.kind.accept("State", st); err != nil {
		return err
	}
	return op.Run(context.Background(), &H3Call{Dst: dst, Q: q, K: k, V: v, State: st})
}

// StepBatch runs one token, a row, for each of many states: Run with States. Errors match
// those of Run.
func (op *H3) StepBatch(dst, q, k, v blas32.General, states []*State) error {
	return op.Run(context.Background(), &H3Call{Dst: dst, Q: q, K: k, V: v, States: pack.EachRow(states)})
}

// Run is Forward, Step and StepBatch with everything optional. Errors match ErrShape,
// ErrCall, ErrState or ErrFull, or are ctx.Err() once ctx is done; states are then as they
// were, and Dst is unspecified.
func (op *H3) Run(ctx context.Context, call *H3Call) error {
	if err := check.Call(pkg, ctx, call != nil); err != nil {
		return err
	}
	dim := op.Dim()
	if err := check.Matrix(ErrShape, pkg, "q", call.Q, -1, dim, "Heads*HeadDim"); err != nil {
		return err
	}
	if err := check.Output(ErrShape, pkg, call.Dst, call.Q.Rows, dim, "Heads*HeadDim", call.Q, true); err != nil {
		return err
	}
	for _, m := range [...]struct {
		name string
		m    blas32.General
	}{{"k", call.K}, {"v", call.V}} {
		if err := check.Matrix(ErrShape, pkg, m.name, m.m, call.Q.Rows, dim, "Heads*HeadDim"); err != nil {
			return err
		}
		if mat.Overlap(call.Dst, m.m) {
			return check.Errorf(ErrShape, "hyena: dst shares elements with an input")
		}
	}
	workers, err := chooseWorkers(op.cfg.Workers, call.Workers)
	if err != nil {
		return err
	}
	if check.Product(mostTokens, call.Q.Rows, op.wide()) < 0 {
		return check.Errorf(ErrTooLong, "hyena: q has %d rows, more than this machine can address", call.Q.Rows)
	}
	r := op.scratch.h3s.Get()
	defer op.scratch.h3s.Put(r)
	inner, err := r.modal.past.begin(ctx, &op.kind, batchOf(call.Q, call.Offsets, call.State, call.States))
	if err != nil {
		return err
	}
	return check.Wrap(ctx, pkg, r.modal.past.end(r.attend(inner, op, call, workers)))
}

// h3Rows is how many tokens a task has.
const h3Rows = 64

// h3Run is the working memory of a call of H3.
type h3Run struct {
	modal   modalRun // with the sequences of the call
	conv    convRun
	group   parallel.Group
	op      *H3
	call    H3Call
	window  []float32      // of the sequence that is run: its last k, before
	y       blas32.General // [tokens, H P P]
	yData   []float32      // of y
	workers []h3Worker

	multiply, contract func(worker, i int)
}

// h3Worker is what each worker has for itself: k, shifted k, and a row.
type h3Worker struct{ k, shifted []float32 }

// attend runs the sequences of a call one after the other.
func (r *h3Run) attend(ctx context.Context, op *H3, call *H3Call, workers int) error {
	if r.multiply == nil {
		r.multiply, r.contract = r.multiplyRows, r.contractRows
	}
	r.op = op
	defer func() { r.op, r.call, r.window = nil, H3Call{}, nil }()
	past := &r.modal.past
	for i, g := range past.layout.Segments {
		n := g.To - g.From
		if n == 0 {
			continue
		}
		r.call = H3Call{Dst: mat.Rows(call.Dst, g.From, g.To), Q: mat.Rows(call.Q, g.From, g.To), K: mat.Rows(call.K, g.From, g.To), V: mat.Rows(call.V, g.From, g.To)}
		r.yData = scratch.Floats(r.yData, n*op.wide())
		r.y = mat.Of(r.yData, n, op.wide())
		values, pos := past.values(i)
		r.window = values[:op.windowSize()]
		tasks := (n + h3Rows - 1) / h3Rows
		for len(r.workers) < min(workers, tasks) {
			r.workers = append(r.workers, h3Worker{})
		}
		if err := r.group.Run(ctx, workers, tasks, r.multiply); err != nil {
			return err
		}
		r.slideWindow()
		if err := r.remember(ctx, i, values[op.windowSize():], pos, workers); err != nil {
			return err
		}
		if err := r.group.Run(ctx, workers, tasks, r.contract); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// remember convolves y, the products of sequence i.
func (r *h3Run) remember(ctx context.Context, i int, values []float32, pos, workers int) error {
	op, past := r.op, &r.modal.past
	switch {
	case past.given() && op.modal != nil:
		r.modal.spans = append(r.modal.spans, modalSpan{r.y, r.y, values, pos})
		return r.modal.advanceAll(ctx, op.modal, workers)
	case past.given():
		return past.layout.States[i].streams[0].step(ctx, &r.conv, r.y, r.y, workers)
	case op.modal != nil:
		return op.modal.Run(ctx, &ModalCall{Dst: r.y, X: r.y, Workers: workers})
	}
	return op.conv.Run(ctx, &ConvCall{Dst: r.y, X: r.y, Workers: workers})
}

// rows are those of a task.
func (r *h3Run) rows(i int) (from, to int) { return i * h3Rows, min((i+1)*h3Rows, r.call.Q.Rows) }

// multiplyRows shifts k and sets y to k v^T.
func (r *h3Run) multiplyRows(worker, i int) {
	from, to := r.rows(i)
	k := r.shiftRows(&r.workers[worker], from, to)
	p := r.op.cfg.HeadDim
	for t := from; t < to; t++ {
		y, kt, vt := mat.Row(r.y, t), mat.Row(k, t-from), mat.Row(r.call.V, t)
		if p == 1 {
			asm.Mul(y, kt, vt)
			continue
		}
		for c, x := range kt {
			asm.Scale(y[c*p:][:p], x, vt[c/p*p:][:p])
		}
	}
}

// shiftRows returns rows of k, shifted.
func (r *h3Run) shiftRows(w *h3Worker, from, to int) blas32.General {
	op := r.op
	if op.shift.Rows == 0 {
		return mat.Rows(r.call.K, from, to)
	}
	before, dim, n := op.shift.Rows-1, op.Dim(), to-from
	w.k, w.shifted = scratch.Floats(w.k, (before+n)*dim), scratch.Floats(w.shifted, n*dim)
	in, out := mat.Of(w.k, before+n, dim), mat.Of(w.shifted, n, dim)
	own := max(0, before-from) // rows that the window has
	mat.Copy(in, mat.Rows(mat.Of(r.window, before, dim), before-own, before))
	mat.Copy(mat.Rows(in, own, in.Rows), mat.Rows(r.call.K, from-before+own, to))
	var history blas32.General
	if before > 0 {
		history = mat.Rows(in, 0, before)
	}
	asm.DepthwiseConv(out, mat.Rows(in, before, in.Rows), op.shift, nil, history)
	return out
}

// slideWindow brings the window to the last k.
func (r *h3Run) slideWindow() {
	k := r.call.K
	before, dim := max(0, r.op.shift.Rows-1), r.op.Dim()
	kept := max(0, before-k.Rows)
	copy(r.window, r.window[(before-kept)*dim:])
	mat.Copy(mat.Rows(mat.Of(r.window, before, dim), kept, before), mat.Rows(k, k.Rows-(before-kept), k.Rows))
}

// contractRows sets dst to q y.
func (r *h3Run) contractRows(_, i int) {
	from, to := r.rows(i)
	p := r.op.cfg.HeadDim
	for t := from; t < to; t++ {
		dst, q, y := mat.Row(r.call.Dst, t), mat.Row(r.call.Q, t), mat.Row(r.y, t)
		if p == 1 {
			asm.Mul(dst, q, y)
			continue
		}
		for h := 0; h < len(q); h += p {
			// The first row of y is not needed any more once it is the sum.
			sum := y[h*p:][:p]
			asm.Scale(sum, q[h], sum)
			for e := 1; e < p; e++ {
				asm.Axpy(sum, q[h+e], y[(h+e)*p:][:p])
			}
			copy(dst[h:][:p], sum)
		}
	}
}
