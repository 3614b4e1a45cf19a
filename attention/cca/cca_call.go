package cca

import (
	"context"
	"fmt"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/pack"
)

// Forward attends over one sequence: q is [tokens, Heads*HeadDim], k [tokens,
// KVHeads*HeadDim], v [tokens, KVHeads*ValueDim] and dst [tokens,
// Heads*ValueDim], heads side by side, positions already applied. Inputs may
// overlap each other, dst none of them. After the first call of a shape nothing
// is allocated.
//
// A query costs as much as exact attention to Window + GroupSize/2 tokens and, for
// the query at position i, i/GroupSize cores. Cores take 1/GroupSize of the memory that
// keys and values would, repeated for each query head; see ScratchBytes. Errors match
// ErrShape.
func (c *CCA) Forward(dst, q, k, v blas32.General) error {
	r := c.scratch.Get()
	defer c.scratch.Put(r)
	return r.serve(context.Background(), c, request{Dst: dst, Q: q, K: k, V: v}, nil, nil)
}

// Step is Forward for the next tokens, one or many, after those that the state
// has seen. Any split of a sequence gives what Forward gives, up to rounding and to
// what the state's Format loses. Up to 64 tokens cost the reading of what they see,
// where it stands, as in attention.Attention.Step; for more, keys are packed first, as
// in Forward. On an error the state is as before the call, or at the end of one of the
// stretches of 8192 tokens that long calls are cut into; the state's Len tells. Errors match
// those of Run.
func (c *CCA) Step(dst, q, k, v blas32.General, st *State) error {
	if st == nil {
		return check.NilState("cca", "State")
	}
	r := c.scratch.Get()
	defer c.scratch.Put(r)
	return r.serve(context.Background(), c, request{Dst: dst, Q: q, K: k, V: v}, st, nil)
}

// StepBatch is Step for the next token of each of many states: row i of the matrices
// belongs to states[i]. See Run for several tokens each. Errors match those of Run.
func (c *CCA) StepBatch(dst, q, k, v blas32.General, states []*State) error {
	if states == nil {
		states = []*State{}
	}
	r := c.scratch.Get()
	defer c.scratch.Put(r)
	return r.serve(context.Background(), c, request{Dst: dst, Q: q, K: k, V: v}, nil, states)
}

// Options are what only CCA has of a call: attention.Call.Options takes a pointer to
// one.
type Options struct {
	// CoreK and CoreV receive the cores of the first level, sequence after sequence;
	// CoreShape tells their shape. Weights, [cores, Heads*GroupSize], receives the
	// weights of each group's tokens, with PoolSignificance. They are not used
	// together with a State, whose Cores has them.
	CoreK, CoreV, Weights blas32.General
	// Blocks are groups seen as they are and not through their cores, in rising
	// order, by every query whose window they have left. They are not used together
	// with Offsets, States or more than one level.
	Blocks []Block
}

// Block is the tokens of a group, counted from 0 at the sequence's beginning: K
// is [GroupSize, KVHeads*HeadDim], V [GroupSize, KVHeads*ValueDim].
type Block struct {
	Group int
	K, V  blas32.General
}

// request is a call but for its states, with its options.
type request struct {
	Dst, Q, K, V blas32.General
	Offsets      []int
	LSE          blas32.General
	Options
	workers int
}

// Run is Forward, Step or StepBatch with everything optional, and an end: when ctx is
// done it returns ctx.Err() itself and leaves Dst in an unspecified state. Of a Call it
// takes K and V of one segment, Offsets, State or States, LSE, Workers, and for Options
// a *Options; any other option is an error. Several states of which none gets more than
// 64 tokens go on together, others one after the other. Errors about matrices match
// ErrShape, those about options ErrCall, those about states ErrState or ErrFull; all
// but that of an exhausted pool of pages come before anything is written.
func (c *CCA) Run(ctx context.Context, call *attention.Call) error {
	if err := check.Call("cca", ctx, call != nil); err != nil {
		return err
	}
	if err := call.Honor("cca", attention.UsesState|attention.UsesOffsets|attention.UsesLSE); err != nil {
		return err
	}
	if err := call.One("cca"); err != nil {
		return err
	}
	q := request{Dst: call.Dst, Q: call.Q, K: call.K[0], V: call.V[0], Offsets: call.Offsets, LSE: call.LSE, workers: call.Workers}
	if call.Options != nil {
		o, _ := call.Options.(*Options)
		if o == nil {
			return check.Errorf(attention.ErrCall, "cca: Options is a %T, want a *cca.Options", call.Options)
		}
		q.Options = *o
	}
	r := c.scratch.Get()
	defer c.scratch.Put(r)
	var state *State
	if call.State != nil {
		if state, _ = call.State.(*State); state == nil {
			return check.NoState[*State]("cca", "State", call.State)
		}
	}
	if call.States == nil {
		return r.serve(ctx, c, q, state, nil)
	}
	defer func() { clear(r.list) }()
	r.list = append(r.list[:0], nil)[:0] // not nil, even where States is empty
	for i, x := range call.States {
		s, _ := x.(*State)
		if s == nil {
			return check.NoState[*State]("cca", fmt.Sprintf("States[%d]", i), x)
		}
		r.list = append(r.list, s)
	}
	return r.serve(ctx, c, q, state, r.list)
}

// check reports a mistake in the call; nothing has been written. It fills
// r.layout.
func (r *run) check(state *State, states []*State) error {
	c, call := r.op, &r.call
	cfg := &c.cfg
	matrix := func(name string, m blas32.General, rows, cols int, what string) error {
		return check.Matrix(attention.ErrShape, "cca", name, m, rows, cols, what)
	}
	if err := matrix("q", call.Q, -1, cfg.Heads*cfg.HeadDim, "Heads*HeadDim"); err != nil {
		return err
	}
	if call.K.Rows > call.Q.Rows && call.K.Rows >= 0 {
		return check.Errorf(attention.ErrShape, "cca: k has %d rows and q %d, want as many: cores are pooled by the queries of their own tokens, so the past of a block of queries comes as a State", call.K.Rows, call.Q.Rows)
	}
	if err := matrix("k", call.K, call.Q.Rows, cfg.KVHeads*cfg.HeadDim, "KVHeads*HeadDim"); err != nil {
		return err
	}
	if err := matrix("v", call.V, call.Q.Rows, cfg.KVHeads*cfg.ValueDim, "KVHeads*ValueDim"); err != nil {
		return err
	}
	batch := pack.Batch[*State]{Rows: call.Q.Rows, Offsets: call.Offsets, State: state, States: states}
	if err := r.layout.Lay("cca", batch, r.own); err != nil {
		return err
	}
	if err := r.checkBlocks(); err != nil {
		return err
	}
	if len(r.layout.States) > 0 {
		return r.checkRoom()
	}
	cores := 0
	for _, x := range r.layout.Segments {
		cores += int(c.pooled(0, int64(x.To-x.From)-1))
	}
	return r.checkOutputs(cores)
}

// checkOwner reports a state that is not one of the operator's.
func (r *run) checkOwner(name string, s *State) error {
	switch {
	case s == nil:
		return check.NilState("cca", name)
	case s.op == nil || s.op.print != r.op.print:
		return check.Errorf(attention.ErrState, "cca: %s is of another operator", name)
	}
	return nil
}

// checkBlocks reports Blocks that cannot be seen in place of their cores.
func (r *run) checkBlocks() error {
	c, call := r.op, &r.call
	cfg := &c.cfg
	if len(call.Blocks) > 0 && (call.Offsets != nil || len(r.layout.States) > 1 || len(c.levels) > 1) {
		return check.Errorf(attention.ErrCall, "cca: Blocks together with Offsets, States or more than one level")
	}
	for i, b := range call.Blocks {
		if b.Group < 0 || i > 0 && b.Group <= call.Blocks[i-1].Group {
			return check.Errorf(attention.ErrCall, "cca: Blocks[%d].Group is %d, want 0 or more, in rising order", i, b.Group)
		}
		if err := check.Matrix(attention.ErrShape, "cca", "K of a block", b.K, cfg.GroupSize, cfg.KVHeads*cfg.HeadDim, "KVHeads*HeadDim"); err != nil {
			return err
		}
		if err := check.Matrix(attention.ErrShape, "cca", "V of a block", b.V, cfg.GroupSize, cfg.KVHeads*cfg.ValueDim, "KVHeads*ValueDim"); err != nil {
			return err
		}
	}
	return nil
}

// checkRoom reports a call that its states cannot take up.
func (r *run) checkRoom() error {
	call := &r.call
	if call.CoreK.Data != nil || call.CoreV.Data != nil || call.Weights.Data != nil {
		return check.Errorf(attention.ErrCall, "cca: CoreK, CoreV or Weights together with a state, want its Cores")
	}
	for b, s := range r.layout.States {
		n := int64(r.layout.Segments[b].To - r.layout.Segments[b].From)
		if most := int64(s.cfg.MaxTokens); most > 0 && n > most-s.length {
			return check.Errorf(attention.ErrFull, "cca: %d tokens after %d, want at most MaxTokens = %d", n, s.length, most)
		}
		if n > mostTokens-s.length {
			return check.Errorf(attention.ErrFull, "cca: %d tokens after %d, want at most 2^60", n, s.length)
		}
	}
	return r.checkOutputs(0)
}

// checkOutputs reports outputs that have the wrong shape for that many cores, or share
// elements. The kernel would look at Dst and LSE too, but after pooling.
func (r *run) checkOutputs(cores int) error {
	cfg, call := &r.op.cfg, &r.call
	_, kCols, vCols := r.op.CoreShape(0)
	if call.Weights.Rows > 0 && cfg.Pooling != PoolSignificance {
		return check.Errorf(attention.ErrCall, "cca: Weights without PoolSignificance")
	}
	outputs := [...]check.Out{
		{Name: "dst", M: call.Dst, Rows: call.Q.Rows, Cols: cfg.Heads * cfg.ValueDim, What: "Heads*ValueDim", Needed: true},
		{Name: "LSE", M: call.LSE, Rows: call.Q.Rows, Cols: cfg.Heads, What: "Heads"},
		{Name: "CoreK", M: call.CoreK, Rows: cores, Cols: kCols, What: "heads of cores * HeadDim"},
		{Name: "CoreV", M: call.CoreV, Rows: cores, Cols: vCols, What: "heads of cores * ValueDim"},
		{Name: "Weights", M: call.Weights, Rows: cores, Cols: cfg.Heads * cfg.GroupSize, What: "Heads*GroupSize"},
	}
	if err := check.Outputs("cca", outputs[:], call.Q, call.K, call.V); err != nil {
		return err
	}
	for _, b := range call.Blocks {
		if err := check.Outputs("cca", outputs[:], b.K, b.V); err != nil {
			return err
		}
	}
	return nil
}
