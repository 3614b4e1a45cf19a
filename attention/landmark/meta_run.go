package landmark

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// fewTokens is up to how many queries keys are read where they stand, and not packed
// first.
const fewTokens = 64

// metaRun is the working memory of one call: the rows of meta-tokens.
type metaRun struct {
	op     *Meta
	states states[*MetaState]

	q, k, v, dst []float32        // of a sequence's meta-tokens, in a row
	keys, values []blas32.General // segments: the state's tokens, then those of the call
	call         attention.Call
}

// forgetMeta drops what belongs to the caller.
func (r *metaRun) forgetMeta() {
	r.states.clear()
	r.call = attention.Call{}
	clear(r.keys)
	clear(r.values)
}

// attendMeta attends from the meta-tokens of one sequence, and has its state, if there
// is one, take them up.
func (r *metaRun) attendMeta(ctx context.Context, t tokens, s *MetaState) error {
	count := countMarks(t.marks)
	q, k, v := markedRows(&r.q, t.q, t.marks, count), markedRows(&r.k, t.k, t.marks, count), markedRows(&r.v, t.v, t.marks, count)
	r.dst = scratch.Floats(r.dst, count*t.dst.Cols)
	dst := mat.Of(r.dst, count, t.dst.Cols)
	if err := r.attendPicked(ctx, t.workers, dst, q, k, v, s); err != nil {
		return err
	}
	at := 0
	for i, is := range t.marks {
		row := mat.Row(t.dst, i)
		if is {
			copy(row, mat.Row(dst, at))
			at++
		} else {
			clear(row)
		}
	}
	if s != nil {
		s.length += int64(len(t.marks))
	}
	return nil
}

// markedRows returns the rows of marked tokens, in memory.
func markedRows(memory *[]float32, x blas32.General, marks []bool, count int) blas32.General {
	*memory = scratch.Floats(*memory, count*x.Cols)
	m, at := mat.Of(*memory, count, x.Cols), 0
	for t, is := range marks {
		if is {
			copy(mat.Row(m, at), mat.Row(x, t))
			at++
		}
	}
	return m
}

// attendPicked is exact attention over meta-tokens. Few of them, and those of a state
// of another format than float32, step as exact attention does; for many, keys are packed
// first.
func (r *metaRun) attendPicked(ctx context.Context, workers int, dst, q, k, v blas32.General, s *MetaState) error {
	if q.Rows == 0 {
		return nil
	}
	r.keys, r.values = r.keys[:0], r.values[:0]
	step := s != nil && q.Rows <= fewTokens
	if s != nil && !step {
		for at := 0; at < s.tokens.Len() && !step; {
			g, _ := s.tokens.Segment(at)
			if k, v, ok := g.Float32(); ok {
				r.keys, r.values = append(r.keys, k), append(r.values, v)
			} else {
				step, r.keys, r.values = true, r.keys[:0], r.values[:0]
			}
			at += g.Tokens
		}
	}
	r.keys, r.values = append(r.keys, k), append(r.values, v)
	r.call = attention.Call{Workers: workers, Dst: dst, Q: q, K: r.keys, V: r.values}
	if step {
		r.call.State = s.tokens
	}
	if err := r.op.att.Run(ctx, &r.call); err != nil {
		return named(err)
	}
	if s == nil || step {
		return nil
	}
	return named(s.tokens.Append(k, v))
}
