package lm

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// PromptCall runs a whole prompt, each layer over all tokens before the next: for methods
// that look at all tokens of a layer before they choose.
type PromptCall struct {
	Tokens []int32
	// State is brought up to date; it must be empty. nil keeps nothing.
	State *State
	// Last, if it is given, is set to the logits [1, V] after the last token.
	Last blas32.General
	// Mix runs a mixer, by its number, in place on the tokens that are left, x [left, D].
	// What it returns are the rows that go on, or nil for all; the state must then have
	// seen the prompt's tokens all the same.
	Mix     func(ctx context.Context, mixer int, x blas32.General, st LayerState) (rows []int, err error)
	Workers int
}

// RunPrompt runs a prompt, and returns the tokens that have come through all layers, by
// their numbers. After an error the state is as it was.
func (m *Model) RunPrompt(ctx context.Context, call *PromptCall) (kept []int, err error) {
	if err := check.Call(m.cfg.Package, ctx, call != nil); err != nil {
		return nil, err
	}
	if !m.streams {
		return nil, check.Errorf(subquad.ErrCall, "%s: the model cannot go on from a state", m.cfg.Package)
	}
	s := new(run)
	if err := s.accept(m, &Call{Tokens: call.Tokens, State: call.State, Last: call.Last, Workers: call.Workers}); err != nil {
		return nil, err
	}
	if call.State != nil && call.State.Len() != 0 {
		return nil, check.Errorf(subquad.ErrState, "%s: the state has seen %d tokens, want an empty one", m.cfg.Package, call.State.Len())
	}
	s.begin(parallel.Choose(m.cfg.Workers, call.Workers), len(call.Tokens))
	s.n = len(call.Tokens)
	s.rData, s.xData = scratch.Floats(nil, s.n*m.dim), scratch.Floats(nil, s.n*m.dim)
	s.r, s.x = mat.Of(s.rData, s.n, m.dim), mat.Of(s.xData, s.n, m.dim)
	for t := range s.n {
		kept = append(kept, t)
	}
	if err := s.eachBlock(ctx, s.embed); err != nil {
		return nil, check.Wrap(ctx, m.cfg.Package, err)
	}
	st := m.newState()
	for s.mixed = range m.mixers {
		rows, err := call.Mix(ctx, s.mixed, s.x, st.layers[s.mixed])
		if err != nil {
			return nil, check.Wrap(ctx, m.cfg.Package, err)
		}
		if rows != nil {
			kept = s.drop(rows, kept)
		}
		if err := s.eachBlock(ctx, s.onward); err != nil {
			return nil, check.Wrap(ctx, m.cfg.Package, err)
		}
	}
	if mat.Given(call.Last) {
		if s.n == 0 {
			return nil, check.Errorf(subquad.ErrShape, "%s: Last is wanted, but all of %d tokens have been dropped", m.cfg.Package, len(call.Tokens))
		}
		if err := s.score(ctx, call.Last, mat.Rows(s.x, s.n-1, s.n)); err != nil {
			return nil, check.Wrap(ctx, m.cfg.Package, err)
		}
	}
	if st.tokens = len(call.Tokens); call.State != nil && st.tokens > 0 {
		for i, l := range call.State.layers {
			if err := l.CopyFrom(st.layers[i]); err != nil {
				return nil, wrapped(m.cfg.Package, err)
			}
		}
		call.State.tokens = st.tokens
		call.State.keep()
	}
	return kept, nil
}

// drop leaves only some rows of the tokens that are left.
func (s *run) drop(rows, kept []int) []int {
	for i, t := range rows {
		copy(mat.Row(s.r, i), mat.Row(s.r, t))
		copy(mat.Row(s.x, i), mat.Row(s.x, t))
		kept[i] = kept[t]
	}
	s.n = len(rows)
	s.r, s.x = mat.Rows(s.r, 0, s.n), mat.Rows(s.x, 0, s.n)
	return kept[:s.n]
}
