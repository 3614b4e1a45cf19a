package cca

import (
	"errors"
	"io"
	"math"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/state"
)

// A state's file is a head, with the fingerprint and the numbers, then the files of
// the attention.States of its tokens and of each level's cores.
const stateKind = "sqCCA\x00\x00\x02"

// fingerprint tells operators apart whose states differ.
func (c *CCA) fingerprint() []int64 {
	cfg := &c.cfg
	return []int64{int64(cfg.Heads), int64(cfg.KVHeads), int64(cfg.HeadDim), int64(cfg.ValueDim), int64(math.Float32bits(cfg.Scale)),
		int64(cfg.GroupSize), int64(cfg.Window), int64(cfg.Pooling), int64(len(c.levels)), int64(cfg.Span), state.Bool(cfg.CountTokens)}
}

// WriteTo writes the state, for a ReadState of an operator of the same
// configuration, on any machine: io.WriterTo. Errors match ErrState or are those of w.
func (s *State) WriteTo(w io.Writer) (int64, error) {
	if s.op == nil {
		return 0, check.Unmade("cca")
	}
	if err := check.Stream(attention.ErrState, "cca", "writer", w); err != nil {
		return 0, err
	}
	f := state.NewWriter(w, stateKind, s.op.fingerprint())
	f.Ints(int64(s.cfg.MaxTokens), int64(s.cfg.Rollback), s.length, int64(s.cfg.Format))
	parts := []io.WriterTo{s.tokens}
	for _, cores := range s.levels {
		parts = append(parts, cores)
	}
	return f.End(parts...)
}

// ReadState reads what WriteTo wrote; the state has memory of its own, also if it was
// one of pages. Errors match attention.ErrState, or are r's. No more memory is taken than
// a small multiple of the bytes that there are to read.
func (c *CCA) ReadState(r io.Reader) (*State, error) {
	f := state.NewReader(r, "cca", attention.ErrState, stateKind, c.fingerprint())
	most, back, length, format := f.Int(), f.Int(), f.Int(), f.Int()
	if f.Err() == nil && (most < 0 || most > math.MaxInt || back < 0 || back > min(math.MaxInt, attention.MaxPosition) || length < 0 || length > mostTokens || most > 0 && length > most || format < 0 || format > int64(asm.Float16)) {
		f.Fail("it has %d tokens of Format %d, MaxTokens %d and Rollback %d", length, format, most, back)
	}
	if err := f.End(); err != nil {
		return nil, err
	}
	s, err := c.NewState(StateConfig{Rollback: int(back), Format: asm.Format(format)})
	if err != nil {
		return nil, err
	}
	s.cfg.MaxTokens, s.length = int(most), length
	if err := readHeld(s.tokens, r, c.needed(-1, length), length); err != nil {
		return nil, err
	}
	for l, cores := range s.levels {
		if err := readHeld(cores, r, c.needed(l, length), length/c.levels[l].size); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// readHeld fills a state of exact attention, which must have seen length tokens and
// still have all of them from position needed on, without a gap.
func readHeld(s *attention.State, r io.Reader, needed, length int64) error {
	switch _, err := s.ReadFrom(r); {
	case errors.Is(err, attention.ErrFull):
		return check.Errorf(attention.ErrState, "cca: state: %v", err)
	case err != nil:
		return named(err)
	case int64(s.Len()) != length || !s.Holds(int(min(needed, oldest(s))), int(length)):
		return check.Errorf(attention.ErrState, "cca: state: it has %d tokens or cores, want %d and all of them from %d on", s.Len(), length, needed)
	}
	return nil
}
