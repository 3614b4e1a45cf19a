package cca

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// fewTokens is up to how many queries keys are read where they stand, and not
// packed first.
const fewTokens = 64

// advanceAll attends from the call's tokens after those of their states: together,
// where each state gets few, or one state after the other, in stretches that bound the
// working memory.
func (r *run) advanceAll(ctx context.Context) error {
	rows := r.call.Q.Rows
	few := rows > 0
	for _, x := range r.layout.Segments {
		few = few && x.To-x.From <= fewTokens
	}
	if few {
		r.offsets = append(r.offsets[:0], 0)
		for _, x := range r.layout.Segments {
			r.offsets = append(r.offsets, x.To)
		}
		return r.advance(ctx, r.layout.States, 0, rows, true)
	}
	for b, x := range r.layout.Segments {
		for from := x.From; from < x.To; {
			to := min(from+r.op.stretch, x.To)
			r.offsets = append(r.offsets[:0], 0, to-from)
			if err := r.advance(ctx, r.layout.States[b:b+1], from, to, to-from <= fewTokens); err != nil {
				return err
			}
			from = to
		}
	}
	return nil
}

// advance does rows from ... to of the call, of the states and r.offsets, and commits
// them, or leaves the states as they were. It is told whether each state gets few.
func (r *run) advance(ctx context.Context, states []*State, from, to int, few bool) (err error) {
	c, call := r.op, &r.call
	r.states = states
	r.tokens = [3]blas32.General{mat.Rows(call.Q, from, to), mat.Rows(call.K, from, to), mat.Rows(call.V, from, to)}
	for i := range r.levels {
		l := &r.levels[i]
		l.begin()
		for b, s := range states {
			first := s.levels[i].Len()
			end := s.length + int64(r.offsets[b+1]-r.offsets[b])
			l.add(int64(first), int(end/c.levels[i].size)-first)
		}
		l.reserve(c)
	}
	if err := r.poolLevels(ctx); err != nil {
		return err
	}
	defer func() {
		if err == nil {
			return
		}
		for i := range r.levels {
			for b, s := range states {
				s.levels[i].Truncate(int(r.levels[i].first[b])) // where it was: cannot fail
			}
		}
	}()
	if err := r.addCores(); err != nil {
		return err
	}
	dst, lse := mat.Rows(call.Dst, from, to), call.LSE
	if lse.Rows > 0 {
		lse = mat.Rows(lse, from, to)
	}
	if few {
		r.past = r.past[:0]
		for _, s := range states {
			r.past = append(r.past, s.tokens)
		}
		r.k, r.v = append(r.k[:0], r.tokens[1]), append(r.v[:0], r.tokens[2])
		r.inner = attention.Call{States: r.past, Dst: dst, Q: r.tokens[0], K: r.k, V: r.v, Offsets: r.offsets, LSE: lse}
	} else if r.inner, err = r.appended(dst, lse); err != nil {
		return err
	}
	if err := r.attend(ctx); err != nil {
		return err
	}
	for b, s := range states {
		if !few {
			err = s.take(r.tokens[1], r.tokens[2])
		}
		if err != nil {
			return err
		}
		s.length += int64(r.offsets[b+1] - r.offsets[b])
		s.release()
	}
	return nil
}

// addCores puts what was pooled into the states.
func (r *run) addCores() error {
	for i := range r.levels {
		l := &r.levels[i]
		for b, s := range r.states {
			from, to := l.offsets[b], l.offsets[b+1]
			if from == to {
				continue
			}
			if err := s.levels[i].Append(mat.Rows(l.k, from, to), mat.Rows(l.v, from, to)); err != nil {
				return named(err)
			}
		}
	}
	return nil
}

// appended is the call of many queries of one state, whose keys are the state's and
// their own.
func (r *run) appended(dst, lse blas32.General) (attention.Call, error) {
	c, s := r.op, r.states[0]
	first := s.tokens.Len() - s.tokens.Held()
	r.k, r.v = r.k[:0], r.v[:0]
	for at := first; at < s.tokens.Len(); {
		g, _ := s.tokens.Segment(at)
		k, v, ok := g.Float32()
		if !ok { // all that is seen, in float32
			first = int(c.needed(-1, s.length))
			k, v = r.widened(s.tokens, first)
			r.k, r.v = append(r.k[:0], k), append(r.v[:0], v)
			break
		}
		r.k, r.v = append(r.k, k), append(r.v, v)
		at += g.Tokens
	}
	r.k, r.v = append(r.k, r.tokens[1]), append(r.v, r.tokens[2])
	r.at[0], r.first[0] = s.length, int64(first)
	return attention.Call{Dst: dst, Q: r.tokens[0], K: r.k, V: r.v, LSE: lse, QueryPos: r.at[:], KeyPos: r.first[:]}, nil
}

// widened returns the tokens of a state from one on as float32, in r.wide.
func (r *run) widened(s *attention.State, from int) (k, v blas32.General) {
	cfg := &r.op.cfg
	n, kCols, vCols := s.Len()-from, cfg.KVHeads*cfg.HeadDim, cfg.KVHeads*cfg.ValueDim
	r.wide = scratch.Floats(r.wide, n*(kCols+vCols))
	k, v = mat.Of(r.wide, n, kCols), mat.Of(r.wide[n*kCols:], n, vCols)
	for at := 0; at < n; {
		g, _ := s.Segment(from + at)
		widen(mat.Rows(k, at, at+g.Tokens), mat.Rows(v, at, at+g.Tokens), g, cfg.KVHeads)
		at += g.Tokens
	}
	return k, v
}

// widen sets k and v to the first tokens of a segment, which has that many heads.
func widen(k, v blas32.General, g attention.Segment, heads int) {
	dk, dv := k.Cols/heads, v.Cols/heads
	for h := range heads {
		err := g.Keys(mat.Columns(k, h*dk, dk), h, 0)
		if err == nil {
			err = g.Values(mat.Columns(v, h*dv, dv), h, 0)
		}
		if err != nil {
			panic(err) // shapes that do not go with the state
		}
	}
}

// take puts tokens, the next of the sequence and more than a few, into the state, as
// far as later queries see them.
func (s *State) take(k, v blas32.General) error {
	old := int(s.length)
	keep := int(s.kept(-1, s.length+int64(k.Rows)))
	if s.cfg.Pages == nil { // which may run out; this cannot
		if keep <= old {
			s.tokens.Forget(keep)
			return named(s.tokens.Append(k, v))
		}
		s.tokens.Forget(old) // none of these can fail: the state is no ring and keep is not negative
		s.tokens.Skip(keep - old)
		return named(s.tokens.Append(mat.Rows(k, keep-old, k.Rows), mat.Rows(v, keep-old, v.Rows)))
	}
	if keep <= old {
		return named(s.tokens.Append(k, v))
	}
	next, err := s.op.att.NewState(s.tokensConfig())
	if err != nil {
		return named(err)
	}
	next.Skip(keep)
	if err := next.Append(mat.Rows(k, keep-old, k.Rows), mat.Rows(v, keep-old, v.Rows)); err != nil {
		return named(err)
	}
	s.tokens.Reset()
	s.tokens = next
	return nil
}

// release lets go of what no later query sees.
func (s *State) release() {
	s.tokens.Forget(int(s.kept(-1, s.length)))
	for l := range s.levels {
		s.levels[l].Forget(int(s.kept(l, s.length)))
	}
}

// kept returns the first core of a level, or at level -1 the first token, that a state
// of length tokens must keep: all that queries see from there on, and from Rollback
// tokens before.
func (s *State) kept(level int, length int64) int64 {
	return s.op.needed(level, max(length-int64(s.cfg.Rollback), 0))
}

// mostTokens bounds the tokens of a state.
const mostTokens = min(attention.MaxPosition, math.MaxInt/2)
