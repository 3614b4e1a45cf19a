package landmark

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/pack"
)

// Forward attends over one sequence, whose matrices are those of Landmark.Forward; meta
// tells which tokens are meta-tokens. Inputs may overlap each other, dst none of them.
// After the first call of a shape nothing is allocated. Errors match ErrShape.
func (m *Meta) Forward(dst, q, k, v blas32.General, meta []bool) error {
	r := m.scratch.Get()
	defer m.scratch.Put(r)
	return r.serveMeta(context.Background(), m, tokens{dst: dst, q: q, k: k, v: v, marks: meta}, pack.Batch[*MetaState]{})
}

// Step is Forward for the next tokens, one or many, after those that the state
// has seen. Any split of a sequence gives what Forward gives, up to rounding and to what
// the state's Format loses. On an error the state is as before the call. Errors match those of
// Run.
func (m *Meta) Step(dst, q, k, v blas32.General, meta []bool, st *MetaState) error {
	if st == nil {
		return check.NilState("landmark", "State")
	}
	r := m.scratch.Get()
	defer m.scratch.Put(r)
	return r.serveMeta(context.Background(), m, tokens{dst: dst, q: q, k: k, v: v, marks: meta}, pack.Batch[*MetaState]{State: st})
}

// StepBatch is Step for the next token of each of many states: row i of the matrices and
// meta[i] belong to states[i], and no state may be there twice. It is Run with States, which
// also takes several tokens of each. States go on one after the other: after an error of an
// exhausted pool of pages some may have, as their Len tells. Errors match those of Run.
func (m *Meta) StepBatch(dst, q, k, v blas32.General, meta []bool, states []*MetaState) error {
	if states == nil {
		states = []*MetaState{}
	}
	r := m.scratch.Get()
	defer m.scratch.Put(r)
	return r.serveMeta(context.Background(), m, tokens{dst: dst, q: q, k: k, v: v, marks: meta}, pack.Batch[*MetaState]{States: states})
}

// MetaOptions are what only Meta has of a call: attention.Call.Options takes a pointer
// to one, and needs it.
type MetaOptions struct {
	// Meta tells which tokens are meta-tokens, as in Forward.
	Meta []bool
}

// Run is Forward, Step or StepBatch with everything optional, and an end: when ctx is done
// it returns ctx.Err() itself and leaves Dst in an unspecified state. Of a Call it takes
// K and V of one segment, Offsets, State or States, Workers and, always, a *MetaOptions
// for Options; any other option is an error. Sequences are done one after the other:
// after an error some states may have gone on, as their Len tells. Errors are those of
// Landmark.Run.
func (m *Meta) Run(ctx context.Context, call *attention.Call) error {
	o, err := begin[MetaOptions](ctx, call, attention.UsesState|attention.UsesOffsets)
	if err != nil {
		return err
	}
	r := m.scratch.Get()
	defer m.scratch.Put(r)
	batch, err := r.states.batch(call)
	if err != nil {
		return err
	}
	return r.serveMeta(ctx, m, tokens{call.Dst, call.Q, call.K[0], call.V[0], blas32.General{}, o.Meta, call.Workers}, batch)
}

// serveMeta checks a call and does it, sequence after sequence.
func (r *metaRun) serveMeta(ctx context.Context, m *Meta, all tokens, batch pack.Batch[*MetaState]) error {
	r.op = m
	defer r.forgetMeta()
	cfg := &m.cfg
	if err := all.check("meta", cfg.Heads, cfg.KVHeads, cfg.HeadDim, cfg.ValueDim); err != nil {
		return err
	}
	if err := r.states.lay(batch, all.q.Rows, m.print); err != nil {
		return err
	}
	layout := &r.states.layout
	for b, s := range layout.States {
		x := layout.Segments[b]
		n, count := x.To-x.From, countMarks(all.marks[x.From:x.To])
		switch most := s.cfg.MaxTokens; {
		case most > 0 && count > most-s.tokens.Len():
			return check.Errorf(attention.ErrFull, "landmark: %d meta-tokens after %d, want at most MaxTokens = %d", count, s.tokens.Len(), most)
		case int64(n) > mostTokens-s.length:
			return check.Errorf(attention.ErrFull, "landmark: %d tokens after %d, want at most 2^60", n, s.length)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for b, x := range layout.Segments {
		if err := r.attendMeta(ctx, all.rows(x), r.states.stateOf(b)); err != nil {
			return err
		}
	}
	return nil
}

func countMarks(marks []bool) (n int) {
	for _, is := range marks {
		if is {
			n++
		}
	}
	return n
}
