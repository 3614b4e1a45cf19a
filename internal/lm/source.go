package lm

import (
	"context"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// Source is a model and a sequence that it reads, which can go back: all that byte
// probabilities and models that decode together need of either.
type Source interface {
	// Vocab is V, the number of logits.
	Vocab() int
	// Continue cuts the sequence to its first keep tokens, adds tokens, of which there is
	// one at least, and sets the rows of logits, at most len(tokens) of V columns, to those
	// after each of the last tokens. After an error the sequence is to be taken for empty.
	Continue(ctx context.Context, logits blas32.General, keep int, tokens []int32) error
	// Clone returns another Source that has read the same.
	Clone() Source
}

// sourceSnapshots is how far back a Source of a model with recurrences goes without reading
// from the beginning.
const sourceSnapshots = 32

// NewSource returns a Source of a model that has read nothing.
func (m *Model) NewSource() (Source, error) { return m.NewSourceWith(StateConfig{}) }

// NewSourceWith is NewSource of a model that remembers what a configuration says. Without
// Snapshots the state has as many as it needs.
func (m *Model) NewSourceWith(cfg StateConfig) (Source, error) {
	if cfg.Snapshots == 0 {
		cfg.Snapshots = sourceSnapshots
	}
	st, err := m.NewState(cfg)
	if err != nil {
		return nil, err
	}
	return &source{model: m, state: st}, nil
}

// source is a Source of a Model.
type source struct {
	model  *Model
	state  *State
	tokens []int32 // that the state has seen
	call   Call
	again  []int32
}

func (s *source) Vocab() int { return s.model.vocab }

// Clone implements Source.
func (s *source) Clone() Source {
	return &source{model: s.model, state: s.state.Clone(), tokens: slices.Clone(s.tokens)}
}

// Continue implements Source.
func (s *source) Continue(ctx context.Context, logits blas32.General, keep int, tokens []int32) error {
	if err := check.Call(s.model.cfg.Package, ctx, true); err != nil {
		return err
	}
	if logits.Rows != 0 {
		if err := check.Matrix(subquad.ErrShape, s.model.cfg.Package, "Logits", logits, -1, s.model.vocab, "V"); err != nil {
			return err
		}
	}
	if keep < 0 || keep > len(s.tokens) || len(tokens) == 0 || logits.Rows > len(tokens) {
		return check.Errorf(subquad.ErrCall, "%s: %d tokens after the first %d of %d, with %d rows of logits", s.model.cfg.Package, len(tokens), keep, len(s.tokens), logits.Rows)
	}
	// Tokens that stay are read again from the nearest point that the state can go back to.
	s.again = append(append(s.again[:0], s.tokens[:keep]...), tokens...)
	s.tokens = s.tokens[:s.back(keep)]
	// All but the last in one call; of those a call for each leaves a snapshot after each,
	// unless the state can go back without.
	first := len(s.again) - logits.Rows
	if err := s.read(ctx, min(first, len(s.again)-sourceSnapshots), blas32.General{}); err != nil {
		return err
	}
	for n := len(s.tokens); n < len(s.again); n = len(s.tokens) {
		switch {
		case !s.cuts():
			n++
		case n < first:
			n = first
		default:
			n = len(s.again)
		}
		var rows blas32.General
		if n > first {
			rows = mat.Rows(logits, len(s.tokens)-first, n-first)
		}
		if err := s.read(ctx, n, rows); err != nil {
			return err
		}
	}
	return nil
}

// read has the state read the first n tokens of again, and sets logits, if given, to those
// after each new one.
func (s *source) read(ctx context.Context, n int, logits blas32.General) error {
	from := len(s.tokens)
	if n <= from {
		return nil
	}
	s.call = Call{Tokens: s.again[from:n], State: s.state, Logits: logits}
	if err := s.model.Run(ctx, &s.call); err != nil {
		s.tokens = s.tokens[:0]
		s.state.Reset()
		return err
	}
	s.tokens = append(s.tokens, s.again[from:n]...)
	return nil
}

// cuts tells whether the state can go back by any number of tokens.
func (s *source) cuts() bool {
	n := s.state.Len()
	for _, l := range s.state.layers {
		if n == 0 || !l.CanTruncate(n-1) {
			return false
		}
	}
	return true
}

// back cuts the state to at most keep tokens, as many as it can, and returns how many.
func (s *source) back(keep int) int {
	for n := keep; n > max(0, keep-sourceSnapshots); n-- {
		if s.state.Truncate(n) == nil {
			return n
		}
	}
	s.state.Reset()
	return 0
}
