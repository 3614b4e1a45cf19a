package cca

import (
	"io"
	"math"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/state"
)

const stateKind = "sqCCA\x00\x00\x01"

// fingerprint tells operators apart whose states differ.
func (c *CCA) fingerprint() []int64 {
	cfg := &c.cfg
	return []int64{int64(cfg.Heads), int64(cfg.KVHeads), int64(cfg.HeadDim), int64(cfg.ValueDim), int64(math.Float32bits(cfg.Scale)),
		int64(cfg.Group), int64(cfg.Window), int64(cfg.Pooling), int64(len(c.levels)), int64(cfg.Span), state.Bool(cfg.CountTokens)}
}

// WriteTo writes the state, for a ReadState of an operator of the same
// configuration, on any machine.
func (s *State) WriteTo(w io.Writer) (int64, error) {
	f := state.NewWriter(w, stateKind, s.op.fingerprint())
	f.Ints(int64(s.cfg.MaxTokens), int64(s.cfg.Rollback), s.length)
	s.tokens.WriteTo(f)
	for l := range s.levels {
		s.levels[l].WriteTo(f)
	}
	return f.End()
}

// ReadState reads what WriteTo wrote. Errors match attention.ErrState, or are r's. No more
// memory is taken than there are bytes to read.
func (c *CCA) ReadState(r io.Reader) (*State, error) {
	f := state.NewReader(r, "cca", attention.ErrState, stateKind, c.fingerprint())
	s, err := c.NewState(StateConfig{})
	if err != nil {
		return nil, err
	}
	most, back := f.Int(), f.Int()
	s.length = f.Int()
	if f.Err() == nil && (most < 0 || most > math.MaxInt || back < 0 || back > min(math.MaxInt, attention.MaxPosition) || s.length < 0 || s.length > attention.MaxPosition || most > 0 && s.length > most) {
		f.Fail("it has %d tokens, MaxTokens %d and Rollback %d", s.length, most, back)
	}
	s.cfg = StateConfig{MaxTokens: int(most), Rollback: int(back)}
	s.tokens.ReadFrom(f, c.needed(-1, s.length), s.length)
	for l := range s.levels {
		s.levels[l].ReadFrom(f, c.needed(l, s.length), s.length/c.levels[l].size)
	}
	if err := f.End(); err != nil {
		return nil, err
	}
	return s, nil
}
