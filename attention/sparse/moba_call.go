package sparse

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/pack"
)

// Forward attends over one sequence: q is [tokens, Heads*HeadDim], k [tokens,
// KVHeads*HeadDim], v [tokens, KVHeads*ValueDim] and dst [tokens, Heads*ValueDim], heads side
// by side. Inputs may overlap each other, dst none of them. After the first call of a shape
// nothing is allocated.
//
// A query costs as much as exact attention to TopK Block keys, or to all where there are
// fewer, and HeadDim multiply-adds for each block's mean. Errors match ErrShape.
func (m *MoBA) Forward(dst, q, k, v blas32.General) error {
	r := m.scratch.Get()
	defer m.scratch.Put(r)
	return r.serve(context.Background(), m, mobaRequest{dst: dst, q: q, k: k, v: v}, pack.Batch[*MoBAState]{})
}

// Step is Forward for the next tokens, one or many, after those that the state has seen. Any
// split of a sequence gives what Forward gives, up to rounding and to what the state's Format
// loses: blocks are chosen by the same bits. A few tokens read their blocks where they stand;
// for more, blocks are packed first, as in Forward. On an error the state is as before the call.
// Errors match those of Run.
func (m *MoBA) Step(dst, q, k, v blas32.General, st *MoBAState) error {
	if st == nil {
		return check.NilState("sparse", "State")
	}
	r := m.scratch.Get()
	defer m.scratch.Put(r)
	return r.serve(context.Background(), m, mobaRequest{dst: dst, q: q, k: k, v: v}, pack.Batch[*MoBAState]{State: st})
}

// StepBatch is Step for the next token of each of many states: row i of the matrices belongs
// to states[i]. See Run for several tokens each. Errors match those of Run.
func (m *MoBA) StepBatch(dst, q, k, v blas32.General, states []*MoBAState) error {
	r := m.scratch.Get()
	defer m.scratch.Put(r)
	return r.serve(context.Background(), m, mobaRequest{dst: dst, q: q, k: k, v: v}, pack.Batch[*MoBAState]{States: pack.EachRow(states)})
}

// Run is Forward, Step or StepBatch with everything optional, and an end: when ctx is done it
// returns ctx.Err() itself, leaves the outputs in an unspecified state and states as they were.
// Of a Call it takes K and V of one segment, Offsets, State or States, LSE, Partial and Workers;
// any other option is an error. Errors about matrices match ErrShape, those about options ErrCall,
// those about states ErrState or ErrFull; all but that
// of an exhausted pool of pages come before anything is written.
func (m *MoBA) Run(ctx context.Context, call *attention.Call) error {
	if err := check.Call("sparse", ctx, call != nil); err != nil {
		return err
	}
	if err := call.Honor("sparse", attention.UsesState|attention.UsesOffsets|attention.UsesLSE|attention.UsesPartial); err != nil {
		return err
	}
	if call.Options != nil {
		return check.Errorf(ErrCall, "sparse: Options is a %T, want nil: MoBA has none", call.Options)
	}
	if err := call.One("sparse"); err != nil {
		return err
	}
	r := m.scratch.Get()
	defer m.scratch.Put(r)
	defer func() { clear(r.list) }()
	batch, err := batchOf(call, &r.list)
	if err != nil {
		return err
	}
	return r.serve(ctx, m, mobaRequest{call.Dst, call.Q, call.K[0], call.V[0], call.LSE, call.Workers}, batch)
}

// mobaRequest is a call but for its states.
type mobaRequest struct {
	dst, q, k, v, lse blas32.General
	workers           int
}

// part returns the rows of a sequence.
func (c *mobaRequest) part(x pack.Segment) mobaRequest {
	p := *c
	for _, m := range [...]*blas32.General{&p.dst, &p.q, &p.k, &p.v, &p.lse} {
		if mat.Given(*m) {
			*m = mat.Rows(*m, x.From, x.To)
		}
	}
	return p
}

// serve checks a call and does it.
func (r *mobaRun) serve(ctx context.Context, m *MoBA, c mobaRequest, batch pack.Batch[*MoBAState]) error {
	r.op, r.call = m, c
	defer r.forget()
	if r.pack == nil {
		r.pack, r.choose, r.attend, r.mean = r.wave.packTask, r.chooseTask, r.attendTask, r.meanTask
		r.own = r.checkOwner
	}
	if err := r.check(batch); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(r.layout.States) > 0 {
		return r.advance(ctx)
	}
	for _, x := range r.layout.Segments {
		if x.From == x.To {
			continue
		}
		c := r.call.part(x)
		means, err := r.meansOf(ctx, c.k)
		if err == nil {
			r.k, r.v = c.k, c.v
			err = r.attendTo(ctx, c, c.k.Rows, means)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// forget drops what belongs to the caller.
func (r *mobaRun) forget() {
	r.call, r.q, r.dst, r.lse = mobaRequest{}, blas32.General{}, blas32.General{}, blas32.General{}
	r.layout.Clear()
	r.wave.forget()
	r.few.forget()
}

// check reports what is wrong with a call, and lays out its sequences. Nothing has been
// written.
func (r *mobaRun) check(batch pack.Batch[*MoBAState]) error {
	cfg, c := &r.op.cfg, &r.call
	n := c.q.Rows
	if err := check.QKV("sparse", c.q, c.k, c.v, n, cfg.Heads, cfg.KVHeads, cfg.HeadDim, cfg.ValueDim); err != nil {
		return err
	}
	outputs := [...]check.Out{
		{Name: "dst", M: c.dst, Rows: n, Cols: cfg.Heads * cfg.ValueDim, What: "Heads*ValueDim", Needed: true},
		{Name: "LSE", M: c.lse, Rows: n, Cols: cfg.Heads, What: "Heads"},
	}
	if err := check.Outputs("sparse", outputs[:], c.q, c.k, c.v); err != nil {
		return err
	}
	batch.Rows = n
	if err := r.layout.Lay("sparse", batch, r.own); err != nil {
		return err
	}
	for b, x := range r.layout.Segments {
		had := 0
		if len(r.layout.States) > 0 {
			s := r.layout.States[b]
			had = s.Len()
			if err := checkRoom(x, had, s.cfg.MaxTokens); err != nil {
				return err
			}
		}
		new := x.To - x.From
		if most := min(cfg.TopK, (had+new)/cfg.Block+1); check.Product(math.MaxInt/4, new, cfg.Heads, most) < 0 { // lists of blocks
			return check.Errorf(ErrShape, "sparse: %d tokens that choose %d blocks in %d heads, more than memory can hold", new, most, cfg.Heads)
		}
	}
	return nil
}

// checkOwner reports a state that is not one of the operator's.
func (r *mobaRun) checkOwner(name string, s *MoBAState) error {
	switch {
	case s == nil:
		return check.NilState("sparse", name)
	case s.op == nil || s.op.print != r.op.print:
		return check.Errorf(ErrState, "sparse: %s is of another operator", name)
	}
	return nil
}
