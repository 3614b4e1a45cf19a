package sparse

import (
	"errors"
	"io"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/state"
)

// A state's file is a head, with the fingerprint and the numbers, then for each key head
// the files of the attention.States of its tokens and its compressed keys.
const nsaKind = "sqNSA\x00\x00\x01"

// WriteTo writes the state, for a ReadState of an operator of the same configuration, on
// any machine: io.WriterTo. Errors match ErrState or are those of w.
func (s *NSAState) WriteTo(w io.Writer) (int64, error) {
	if s.op == nil {
		return 0, check.Unmade("sparse")
	}
	if err := check.Stream(ErrState, "sparse", "writer", w); err != nil {
		return 0, err
	}
	f := state.NewWriter(w, nsaKind, s.op.fingerprint())
	f.Ints(int64(s.cfg.MaxTokens), int64(s.Len()), int64(s.cfg.Format))
	var parts []io.WriterTo
	for g := range s.tokens {
		parts = append(parts, s.tokens[g], s.blocks[g])
	}
	return f.End(parts...)
}

// ReadState reads what WriteTo wrote; the state has memory of its own, also if it was one
// of pages. Errors match ErrState, or are r's. No more memory is taken than a small
// multiple of the bytes that there are to read.
func (a *NSA) ReadState(r io.Reader) (*NSAState, error) {
	most, length, format, err := readHead(r, nsaKind, a.fingerprint())
	if err != nil {
		return nil, err
	}
	s, err := a.NewState(NSAStateConfig{Format: format}) // without memory for tokens that may not be there
	if err != nil {
		return nil, err
	}
	s.cfg.MaxTokens = most
	for g := range s.tokens {
		if err := readWhole(s.tokens[g], r, length); err != nil {
			return nil, err
		}
		if err := readWhole(s.blocks[g], r, a.compressed(length)); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// readHead reads the numbers with which a state's file begins: MaxTokens, tokens and Format.
func readHead(r io.Reader, kind string, fingerprint []int64) (most, length int, format asm.Format, err error) {
	f := state.NewReader(r, "sparse", ErrState, kind, fingerprint)
	m, n, form := f.Int(), f.Int(), f.Int()
	if f.Err() == nil && (m < 0 || m > mostTokens || n < 0 || n > mostTokens || m > 0 && n > m || form < 0 || form > int64(asm.Float16)) {
		f.Fail("it has %d tokens of Format %d, MaxTokens %d", n, form, m)
	}
	return int(m), int(n), asm.Format(form), f.End()
}

// readWhole fills a state of exact attention, which must hold that many tokens.
func readWhole(s *attention.State, r io.Reader, tokens int) error {
	switch _, err := s.ReadFrom(r); {
	case errors.Is(err, attention.ErrFull):
		return check.Errorf(ErrState, "sparse: state: %v", err)
	case err != nil:
		return named(err)
	case s.Len() != tokens || !s.Holds(0, tokens):
		return check.Errorf(ErrState, "sparse: state: it has %d tokens or compressed keys, want %d and all of them", s.Len(), tokens)
	}
	return nil
}
