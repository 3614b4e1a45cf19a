package landmark

import (
	"io"
	"math"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/state"
)

// A state's file is a head, with the fingerprint and the numbers, then the file of the
// attention.State of its meta-tokens.
const metaKind = "sqMeta\x00\x02"

// fingerprint tells operators apart whose states differ.
func (m *Meta) fingerprint() []int64 {
	cfg := &m.cfg
	return []int64{int64(cfg.Heads), int64(cfg.KVHeads), int64(cfg.HeadDim), int64(cfg.ValueDim), int64(math.Float32bits(cfg.Scale))}
}

// WriteTo writes the state, for a ReadState of an operator of the same
// configuration, on any machine: io.WriterTo. Errors match ErrState or are those of w.
func (s *MetaState) WriteTo(w io.Writer) (int64, error) {
	if s.op == nil {
		return 0, check.Unmade("landmark")
	}
	if err := check.Stream(attention.ErrState, "landmark", "writer", w); err != nil {
		return 0, err
	}
	f := state.NewWriter(w, metaKind, s.op.fingerprint())
	f.Ints(int64(s.cfg.MaxTokens), s.length, int64(s.tokens.Len()), int64(s.cfg.Format))
	return f.End(s.tokens)
}

// ReadState reads what WriteTo wrote; the state has memory of its own, also if it was
// one of pages. Errors match attention.ErrState, or are r's. No more memory is taken than
// a small multiple of the bytes that there are to read.
func (m *Meta) ReadState(r io.Reader) (*MetaState, error) {
	f := state.NewReader(r, "landmark", attention.ErrState, metaKind, m.fingerprint())
	most, length, count, format := f.Int(), f.Int(), f.Int(), f.Int()
	if f.Err() == nil && (most < 0 || most > math.MaxInt || length < 0 || length > mostTokens || count < 0 || count > length || most > 0 && count > most || format < 0 || format > int64(asm.Float16)) {
		f.Fail("it has %d meta-tokens of Format %d among %d tokens, MaxTokens %d", count, format, length, most)
	}
	if err := f.End(); err != nil {
		return nil, err
	}
	s, err := m.NewState(MetaStateConfig{Format: asm.Format(format)})
	if err != nil {
		return nil, err
	}
	s.cfg.MaxTokens, s.length = int(most), length
	if err := readHeld(s.tokens, r, count, count); err != nil {
		return nil, err
	}
	return s, nil
}
