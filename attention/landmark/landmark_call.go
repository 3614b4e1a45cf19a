package landmark

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/pack"
)

// Forward attends over one sequence: q is [tokens, Heads*HeadDim], k [tokens,
// KVHeads*HeadDim], v [tokens, KVHeads*ValueDim] and dst [tokens,
// Heads*ValueDim], heads side by side; landmarks tells which tokens are
// landmarks, which may stand anywhere and take positions like others. Inputs may
// overlap each other, dst none of them. After the first call of a shape nothing
// is allocated.
//
// It costs as much as exact causal attention, and memory for packed keys and
// values, and for rotated queries and keys where there is a Rotation. Errors match ErrShape.
func (l *Landmark) Forward(dst, q, k, v blas32.General, landmarks []bool) error {
	r := l.scratch.Get()
	defer l.scratch.Put(r)
	return r.serve(context.Background(), l, tokens{dst: dst, q: q, k: k, v: v, marks: landmarks}, pack.Batch[*State]{})
}

// Step attends from the next tokens of a sequence, one or many: to each other
// and to the tokens since the last landmark as Forward does, and to the TopK
// blocks before them that they choose. A landmark follows every Block tokens.
//
// Positions do not grow with the sequence: the tokens stand right after as many
// blocks as they can read, each chosen block at the place of its rank by age, and
// one further on if it is among the TopK latest. With TopK blocks or fewer all
// are read, each at its own place (the published code places these at and after
// the query's own).
//
// How a sequence is cut into steps therefore matters to what its tokens see.
// On an error the state is as before the call. Errors match those of Run.
func (l *Landmark) Step(dst, q, k, v blas32.General, landmarks []bool, st *State) error {
	if st == nil {
		return check.NilState("landmark", "State")
	}
	r := l.scratch.Get()
	defer l.scratch.Put(r)
	return r.serve(context.Background(), l, tokens{dst: dst, q: q, k: k, v: v, marks: landmarks}, pack.Batch[*State]{State: st})
}

// StepBatch is Step for the next token of each of many states: row i of the matrices and
// landmarks[i] belong to states[i], and no state may be there twice. It is Run with States,
// which also takes several tokens of each. States go on one after the other: after an error
// of an exhausted pool of pages some may have, as their Len tells. Errors match those of Run.
func (l *Landmark) StepBatch(dst, q, k, v blas32.General, landmarks []bool, states []*State) error {
	if states == nil {
		states = []*State{}
	}
	r := l.scratch.Get()
	defer l.scratch.Put(r)
	return r.serve(context.Background(), l, tokens{dst: dst, q: q, k: k, v: v, marks: landmarks}, pack.Batch[*State]{States: states})
}

// Options are what only Landmark has of a call: attention.Call.Options takes a pointer
// to one, and needs it.
type Options struct {
	// Landmarks tells which tokens are landmarks, as in Forward.
	Landmarks []bool
}

// Run is Forward, Step or StepBatch with everything optional, and an end: when ctx is done
// it returns ctx.Err() itself and leaves the outputs in an unspecified state. Of a Call
// it takes K and V of one segment, Offsets, State or States, LSE, Workers and, always, a
// *Options for Options; any other option is an error. Sequences are done one after the
// other: after an error some states may have gone on, as their Len tells. Errors about
// matrices match ErrShape, those about options ErrCall, those about states ErrState or
// ErrFull; all but that of an exhausted pool of pages come before anything is written.
func (l *Landmark) Run(ctx context.Context, call *attention.Call) error {
	o, err := begin[Options](ctx, call, attention.UsesState|attention.UsesOffsets|attention.UsesLSE)
	if err != nil {
		return err
	}
	r := l.scratch.Get()
	defer l.scratch.Put(r)
	batch, err := r.states.batch(call)
	if err != nil {
		return err
	}
	return r.serve(ctx, l, tokens{call.Dst, call.Q, call.K[0], call.V[0], call.LSE, o.Landmarks, call.Workers}, batch)
}

// serve checks a call and does it, sequence after sequence.
func (r *run) serve(ctx context.Context, l *Landmark, all tokens, batch pack.Batch[*State]) error {
	r.op = l
	defer r.forget()
	if r.pack == nil {
		r.pack, r.attend, r.retrieve = r.packTask, r.attendTask, r.retrieveTask
	}
	cfg := &l.cfg
	if err := all.check("landmarks", cfg.Heads, cfg.KVHeads, cfg.HeadDim, cfg.ValueDim); err != nil {
		return err
	}
	if err := r.states.lay(batch, all.q.Rows, l.print); err != nil {
		return err
	}
	layout := &r.states.layout
	for b, s := range layout.States {
		x := layout.Segments[b]
		if err := s.checkNext(x.From, all.marks[x.From:x.To]); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for b, x := range layout.Segments {
		if x.From == x.To {
			continue
		}
		r.call, r.state = all.rows(x), r.states.stateOf(b)
		if err := r.attendAll(ctx); err != nil {
			return err
		}
	}
	return nil
}

// checkNext reports landmarks that do not stand where the state needs them; row is the
// first of them in the call.
func (s *State) checkNext(row int, landmarks []bool) error {
	if int64(len(landmarks)) > mostTokens-s.length {
		return check.Errorf(attention.ErrFull, "landmark: %d tokens after %d, want at most 2^60", len(landmarks), s.length)
	}
	for i, is := range landmarks {
		if want := s.op.IsLandmark(s.length + int64(i)); is != want {
			return check.Errorf(attention.ErrCall, "landmark: landmarks[%d] is %v after %d tokens, want %v: a landmark after every %d tokens", row+i, is, s.length, want, s.op.cfg.Block)
		}
	}
	return nil
}
