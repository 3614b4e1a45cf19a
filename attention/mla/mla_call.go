package mla

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/pack"
)

// Call is a call of MLA with everything optional. Only Dst and X are needed.
type Call struct {
	// Dst and X are [tokens, Dim]; they share no elements.
	Dst, X blas32.General
	// Offsets packs several sequences: sequence b has rows Offsets[b] to Offsets[b+1].
	// nil is one sequence or, with States, one row each.
	Offsets []int
	// State makes the call a step: the tokens come after those of the state, which takes
	// them up. States is one for each sequence. Without either, sequences are whole.
	State  *attention.State
	States []*attention.State
	// Workers is how many goroutines the call may use; 0 stands for the Config's.
	Workers int
}

// Forward sets dst [tokens, Dim] from x [tokens, Dim], one sequence from its
// beginning, in the naive form: keys and values of all heads are made, 4 Heads
// (NopeDim+RopeDim+ValueDim) bytes for each token while it runs. dst must not
// share elements with x. Errors match ErrShape.
func (m *MLA) Forward(dst, x blas32.General) error {
	return m.Run(context.Background(), &Call{Dst: dst, X: x})
}

// Step appends tokens to a state and attends from them, in the absorbed form, which
// costs 2 Heads (2 KVRank + RopeDim) flop for each new token and token held. Errors match
// those of Run.
func (m *MLA) Step(dst, x blas32.General, st *attention.State) error {
	if st == nil {
		return check.NilState("mla", "State")
	}
	return m.Run(context.Background(), &Call{Dst: dst, X: x, State: st})
}

// StepBatch is Step for one token of each of many states: the weights are read once. Errors
// match those of Run.
func (m *MLA) StepBatch(dst, x blas32.General, states []*attention.State) error {
	if states == nil {
		states = []*attention.State{}
	}
	return m.Run(context.Background(), &Call{Dst: dst, X: x, States: states})
}

// Run is Forward, Step or StepBatch with everything optional, and an end: when ctx is
// done it returns ctx.Err(), leaves Dst in an unspecified state and states as they
// were, but for rings (see attention.State). Errors about matrices match ErrShape,
// those about options ErrCall, those about states ErrState or ErrFull; they come
// before anything is written.
func (m *MLA) Run(ctx context.Context, call *Call) error {
	if err := check.Call("mla", ctx, call != nil); err != nil {
		return err
	}
	r := m.scratch.Get()
	defer m.scratch.Put(r)
	defer r.forget()
	if err := r.check(m, call); err != nil {
		return err
	}
	return r.forward(ctx)
}

// check checks a call, and keeps it.
func (r *run) check(m *MLA, call *Call) error {
	c := &m.cfg
	if err := check.Matrix(attention.ErrShape, "mla", "x", call.X, -1, c.Dim, "Dim"); err != nil {
		return err
	}
	if err := check.Output(attention.ErrShape, "mla", call.Dst, call.X.Rows, c.Dim, "Dim", call.X, false); err != nil {
		return err
	}
	if err := check.Workers(attention.ErrCall, "mla", call.Workers); err != nil {
		return err
	}
	r.m, r.call = m, *call
	if r.owned == nil {
		r.owned = r.checkState
	}
	return r.batch.Lay("mla", pack.Batch[*attention.State]{Rows: call.X.Rows, Offsets: call.Offsets, State: call.State, States: call.States}, r.owned)
}

// checkState checks that a state is one of the operator's.
func (r *run) checkState(name string, s *attention.State) error {
	switch {
	case s == nil:
		return check.NilState("mla", name)
	case !r.m.latent.Owns(s):
		return check.Errorf(attention.ErrState, "mla: %s belongs to an operator with another Config or weights", name)
	}
	return nil
}

// forget drops what belongs to the caller.
func (r *run) forget() {
	r.call, r.inner = Call{}, attention.Call{}
	r.one = [2]blas32.General{}
	clear(r.pasts)
	r.batch.Clear()
}
