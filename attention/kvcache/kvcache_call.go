package kvcache

import (
	"context"
	"fmt"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/pack"
)

// Options are what only this operator has of a call: attention.Call.Options may take a
// pointer to one.
type Options struct {
	// Importance has a number for each new token, which SirLLM and External keep the
	// highest of: surprise (SelfInformation), or any other score. Without it tokens have 0.
	Importance []float32
	// Report, if not nil, is set to what the call read.
	Report *Report
}

// Report tells what a call read, in all its sequences.
type Report struct {
	// Tokens is how many tokens were read for their values, and Held how many there
	// were, each counted once for each chunk of queries and each key head.
	Tokens, Held int64
	// Bytes is what keys and values of these tokens take, read once, and Index what was
	// read to choose them.
	Bytes, Index int64
	// Seen is the least share of the weight, over queries and heads, that what was read
	// has as far as the policy knows: exact for Top and TokenSelect where keys meet queries
	// as they are scored (AtOrigin, or no Rotation), by its estimate for Shadow, and for
	// RetroInfer by its centroids, at most: clusters weigh more than these; 1 - Missing for
	// Quest. 1 where all was read, NaN where the policy cannot tell: all others, and several
	// queries at a time.
	Seen float64
	// Missing bounds the share that was not read, for certain: of a step of one token Shadow
	// by its copies, Quest by its pages' bounds, which in many dimensions are next to 1
	// unless neighbours are alike. 0 where all was read, 1 where the policy has no bound.
	Missing float64
	// Error bounds the distance of an output of one head from that of all tokens, for
	// certain, where the policy has such a bound: Shadow. +Inf elsewhere, 0 where all was
	// read.
	Error float64
	// Refreshed is how many choices were made, and Reused how many came from a Cached
	// policy.
	Refreshed, Reused int
}

// Step appends the keys and values of the next tokens of a sequence, one or many, to its
// state and attends from their queries to what the policies leave: q is [tokens,
// Heads*HeadDim], k [tokens, KVHeads*HeadDim], v [tokens, KVHeads*ValueDim] and dst
// [tokens, Heads*ValueDim]. After the first calls of a shape nothing is allocated, but
// for a state that grows. On an error the state has the tokens that Len says. Errors match
// those of Run.
func (a *Attention) Step(dst, q, k, v blas32.General, st *State) error {
	if st == nil {
		return check.NilState("kvcache", "State")
	}
	r := a.scratch.Get()
	defer a.scratch.Put(r)
	return r.serve(context.Background(), a, attention.Call{Dst: dst, Q: q}, k, v, pack.Batch[*State]{State: st})
}

// StepBatch is Step for the next token of each of many states: row i of the matrices
// belongs to states[i], and no state may be there twice. States go on one after the
// other. Errors match those of Run.
func (a *Attention) StepBatch(dst, q, k, v blas32.General, states []*State) error {
	if states == nil {
		states = []*State{}
	}
	r := a.scratch.Get()
	defer a.scratch.Put(r)
	return r.serve(context.Background(), a, attention.Call{Dst: dst, Q: q}, k, v, pack.Batch[*State]{States: states})
}

// Forward attends from one sequence to itself as the policies say, from an empty state
// that is not kept: q is [tokens, Heads*HeadDim], k [tokens, KVHeads*HeadDim], v [tokens,
// KVHeads*ValueDim] and dst [tokens, Heads*ValueDim]. Inputs may overlap each other, dst none of
// them. Errors match those of Run.
func (a *Attention) Forward(dst, q, k, v blas32.General) error {
	r := a.scratch.Get()
	defer a.scratch.Put(r)
	return r.serve(context.Background(), a, attention.Call{Dst: dst, Q: q}, k, v, pack.Batch[*State]{})
}

// Run is Forward, Step or StepBatch with everything optional, and an end: when ctx is
// done it returns ctx.Err() itself and leaves the outputs in an unspecified state. Of a
// Call it takes K and V of one segment, Offsets, State or States, LSE, Workers and
// *Options. Sequences are done one after the other: after an error some states may have
// gone on, as their Len tells, by whole chunks. Errors about matrices match ErrShape,
// those about options ErrCall, those about states ErrState or ErrFull; all but that of
// an exhausted pool of pages come before anything is written.
func (a *Attention) Run(ctx context.Context, call *attention.Call) error {
	if err := check.Call("kvcache", ctx, call != nil); err != nil {
		return err
	}
	if err := call.Honor("kvcache", attention.UsesState|attention.UsesOffsets|attention.UsesLSE); err != nil {
		return err
	}
	if err := call.One("kvcache"); err != nil {
		return err
	}
	if call.Options != nil {
		if o, ok := call.Options.(*Options); !ok || o == nil {
			return check.Errorf(ErrCall, "kvcache: Options is a %T, want a %T", call.Options, o)
		}
	}
	r := a.scratch.Get()
	defer a.scratch.Put(r)
	b := pack.Batch[*State]{Offsets: call.Offsets}
	if call.State != nil {
		if b.State, _ = call.State.(*State); b.State == nil {
			return check.NoState[*State]("kvcache", "State", call.State)
		}
	}
	if call.States != nil {
		r.list = append(r.list[:0], nil)[:0] // not nil, even where States is empty
		defer clear(r.list)
		for i, x := range call.States {
			s, _ := x.(*State)
			if s == nil {
				return check.NoState[*State]("kvcache", fmt.Sprintf("States[%d]", i), x)
			}
			r.list = append(r.list, s)
		}
		b.States = r.list
	}
	return r.serve(ctx, a, *call, call.K[0], call.V[0], b)
}

// checkCall checks a call and lays out its sequences.
func (r *run) checkCall(b pack.Batch[*State]) error {
	cfg, c := &r.op.cfg, &r.call
	n := c.Q.Rows
	if err := check.QKV("kvcache", c.Q, r.k, r.v, n, cfg.Heads, cfg.KVHeads, cfg.HeadDim, cfg.ValueDim); err != nil {
		return err
	}
	r.outputs = [...]check.Out{
		{Name: "dst", M: c.Dst, Rows: n, Cols: cfg.Heads * cfg.ValueDim, What: "Heads*ValueDim", Needed: true},
		{Name: "LSE", M: c.LSE, Rows: n, Cols: cfg.Heads, What: "Heads"},
	}
	r.inputs = [...]blas32.General{c.Q, r.k, r.v}
	if err := check.Outputs("kvcache", r.outputs[:], r.inputs[:]...); err != nil {
		return err
	}
	if o := r.options; o != nil && o.Importance != nil {
		if err := check.Vector(ErrShape, "kvcache", "Importance", o.Importance, n, "tokens"); err != nil {
			return err
		}
	}
	if r.owned == nil {
		r.owned = r.checkState
	}
	b.Rows = n
	if err := r.batch.Lay("kvcache", b, r.owned); err != nil {
		return err
	}
	for i, s := range r.batch.States {
		x := r.batch.Segments[i]
		if err := s.checkRoom(x.To - x.From); err != nil {
			return err
		}
	}
	return nil
}

// checkState checks that a state is one of the operator's.
func (r *run) checkState(name string, s *State) error {
	switch {
	case s == nil:
		return check.NilState("kvcache", name)
	case s.op == nil || s.op.print != r.op.print:
		return check.Errorf(ErrState, "kvcache: %s belongs to an operator of another Config", name)
	}
	return nil
}

// checkRoom reports tokens that a state has no room for.
func (s *State) checkRoom(n int) error {
	if n > mostTokens-s.n {
		return check.Errorf(ErrFull, "kvcache: %d tokens after %d, want at most 2^60", n, s.n)
	}
	if m := s.cfg.MaxTokens; m > 0 && s.op.cfg.Evict == nil && n > m-s.n {
		return check.Errorf(ErrFull, "kvcache: %d tokens after %d, want at most MaxTokens = %d", n, s.n, m)
	}
	return nil
}

// rowsOf returns the rows of a call's matrix, where it is given.
func rowsOf(m blas32.General, from, to int) blas32.General {
	if !mat.Given(m) || m.Rows == 0 {
		return blas32.General{}
	}
	return mat.Rows(m, from, to)
}
