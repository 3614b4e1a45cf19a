package landmark

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
// the attention.States of its blocks, its landmarks and its tail.
const stateKind = "sqLandm\x02"

// fingerprint tells operators apart whose states differ.
func (l *Landmark) fingerprint() []int64 {
	cfg := &l.cfg
	list := []int64{int64(cfg.Heads), int64(cfg.KVHeads), int64(cfg.HeadDim), int64(cfg.ValueDim), int64(math.Float32bits(cfg.Scale)),
		int64(cfg.Block), int64(cfg.TopK), int64(cfg.Selection)}
	if r := l.turn; r != nil {
		list = append(list, int64(r.Config().Layout), int64(math.Float64bits(r.AttentionFactor())))
		for _, f := range r.Frequencies() {
			list = append(list, int64(math.Float64bits(f)))
		}
	}
	return list
}

// WriteTo writes the state, for a ReadState of an operator of the same
// configuration, on any machine: io.WriterTo. Errors match ErrState or are those of w.
func (s *State) WriteTo(w io.Writer) (int64, error) {
	if s.op == nil {
		return 0, check.Unmade("landmark")
	}
	if err := check.Stream(attention.ErrState, "landmark", "writer", w); err != nil {
		return 0, err
	}
	f := state.NewWriter(w, stateKind, s.op.fingerprint())
	f.Ints(int64(s.cfg.MaxBlocks), s.length, int64(s.landmarks.Held()), int64(s.cfg.Format))
	return f.End(s.blocks, s.landmarks, s.tail)
}

// ReadState reads what WriteTo wrote; the state has memory of its own, also if it was
// one of pages. Errors match attention.ErrState, or are r's. No more memory is taken than
// a small multiple of the bytes that there are to read.
func (l *Landmark) ReadState(r io.Reader) (*State, error) {
	f := state.NewReader(r, "landmark", attention.ErrState, stateKind, l.fingerprint())
	most, length, blocks, format := f.Int(), f.Int(), f.Int(), f.Int()
	period := int64(l.period())
	if f.Err() == nil && (most < 0 || most > math.MaxInt || length < 0 || length > mostTokens || blocks < 0 || blocks > length/period || format < 0 || format > int64(asm.Float16)) {
		f.Fail("it has %d blocks of Format %d in %d tokens, MaxBlocks %d", blocks, format, length, most)
	}
	if err := f.End(); err != nil {
		return nil, err
	}
	s, err := l.NewState(StateConfig{MaxBlocks: int(most), Format: asm.Format(format)})
	if err != nil {
		return nil, err
	}
	s.length = length
	size, all := int64(l.cfg.Block), length/period
	for _, x := range [...]struct {
		s            *attention.State
		held, length int64
	}{{s.blocks, blocks * size, all * size}, {s.landmarks, blocks, all}, {s.tail, length % period, length % period}} {
		if err := readHeld(x.s, r, x.held, x.length); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// readHeld fills a state of exact attention, which must have seen length tokens and
// still have the last of them, as many as held.
func readHeld(s *attention.State, r io.Reader, held, length int64) error {
	switch _, err := s.ReadFrom(r); {
	case errors.Is(err, attention.ErrFull):
		return check.Errorf(attention.ErrState, "landmark: state: %v", err)
	case err != nil:
		return named(err)
	case int64(s.Len()) != length || int64(s.Held()) != held || !s.Holds(int(length-held), int(length)):
		return check.Errorf(attention.ErrState, "landmark: state: it holds %d of %d tokens, want the last %d of %d", s.Held(), s.Len(), held, length)
	}
	return nil
}
