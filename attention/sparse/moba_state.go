package sparse

import (
	"context"
	"errors"
	"io"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state"
)

// MoBAStateConfig says how many tokens a state keeps.
type MoBAStateConfig struct {
	// MaxTokens is the most tokens that the state will see; 0 for no limit. With a limit the
	// memory is taken at once.
	MaxTokens int
}

// mostMoBATokens bounds the tokens of a state.
const mostMoBATokens = min(attention.MaxPosition, math.MaxInt/2)

// MoBAState is what MoBA remembers of the tokens it has seen: all keys and values, and the
// means of the keys of whole blocks. It is not safe for concurrent use.
type MoBAState struct {
	op     *MoBA
	cfg    MoBAStateConfig
	tokens *attention.State // of MoBA.held: position i is token i
	means  []float32        // [whole blocks][KVHeads*HeadDim]
}

// NewState returns the state before the first token, or an error that matches ErrConfig.
func (m *MoBA) NewState(cfg MoBAStateConfig) (*MoBAState, error) {
	tokens, err := m.held.NewState(attention.StateConfig{MaxTokens: cfg.MaxTokens})
	if err != nil {
		return nil, named(err)
	}
	s := &MoBAState{op: m, cfg: cfg, tokens: tokens}
	if blocks := cfg.MaxTokens / m.cfg.Block; blocks > 0 {
		s.means = make([]float32, 0, blocks*m.cfg.KVHeads*m.cfg.HeadDim)
	}
	return s, nil
}

// Len returns how many tokens the state has seen.
func (s *MoBAState) Len() int { return s.tokens.Len() }

// Bytes returns the memory of the state's keys, values and means.
func (s *MoBAState) Bytes() int64 { return s.tokens.Bytes() + 4*int64(cap(s.means)) }

// Reset goes back to before the first token and keeps the memory.
func (s *MoBAState) Reset() {
	s.tokens.Reset()
	s.means = s.means[:0]
}

// Clone returns a state that goes its own way from here, with memory of its own.
func (s *MoBAState) Clone() *MoBAState {
	return &MoBAState{op: s.op, cfg: s.cfg, tokens: s.tokens.Clone(), means: append([]float32(nil), s.means...)}
}

// Truncate takes back the last tokens, so that n are left, any number of them; another n is an
// error that matches ErrState.
func (s *MoBAState) Truncate(n int) error {
	if n < 0 || n > s.Len() {
		return check.Errorf(ErrState, "sparse: a state of %d tokens cannot be truncated to %d", s.Len(), n)
	}
	if err := s.tokens.Truncate(n); err != nil {
		return named(err)
	}
	m := s.op
	s.means = s.means[:min(len(s.means), n/m.cfg.Block*m.cfg.KVHeads*m.cfg.HeadDim)]
	return nil
}

// keys returns the keys and values that the state holds, where they stand.
func (s *MoBAState) keys() (k, v blas32.General) {
	if g, ok := s.tokens.Segment(0); ok {
		k, v, _ = g.Float32()
	}
	return k, v
}

// take takes up tokens, and the means of the blocks that become whole.
func (s *MoBAState) take(ctx context.Context, k, v blas32.General) error {
	if err := s.tokens.Append(k, v); err != nil {
		return named(err)
	}
	return s.average(ctx)
}

// average makes the means that are missing.
func (s *MoBAState) average(ctx context.Context) error {
	size, cols := s.op.cfg.Block, s.op.cfg.KVHeads*s.op.cfg.HeadDim
	k, _ := s.keys()
	for b := len(s.means) / cols; b < s.Len()/size; b++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		at := len(s.means)
		s.means = append(s.means, mat.Row(k, b*size)...)
		blockMean(s.means[at:], mat.Rows(k, b*size, (b+1)*size))
	}
	return nil
}

// A state's file is a head, with the fingerprint and the numbers, then the file of the
// attention.State of its tokens. Means are made anew of the keys.
const mobaKind = "sqMoBA\x00\x01"

// fingerprint tells operators apart whose states differ.
func (m *MoBA) fingerprint() []int64 {
	cfg := &m.cfg
	return []int64{int64(cfg.Heads), int64(cfg.KVHeads), int64(cfg.HeadDim), int64(cfg.ValueDim), int64(math.Float32bits(cfg.Scale)), int64(cfg.Block), int64(cfg.TopK)}
}

// WriteTo writes the state, for a ReadState of an operator of the same configuration, on any
// machine: io.WriterTo.
func (s *MoBAState) WriteTo(w io.Writer) (int64, error) {
	if err := check.Stream(ErrState, "sparse", "writer", w); err != nil {
		return 0, err
	}
	f := state.NewWriter(w, mobaKind, s.op.fingerprint())
	f.Ints(int64(s.cfg.MaxTokens), int64(s.Len()))
	return f.End(s.tokens)
}

// ReadState reads what WriteTo wrote. Errors match ErrState, or are r's. No more memory is
// taken than a small multiple of the bytes that there are to read.
func (m *MoBA) ReadState(r io.Reader) (*MoBAState, error) {
	f := state.NewReader(r, "sparse", ErrState, mobaKind, m.fingerprint())
	most, length := f.Int(), f.Int()
	if f.Err() == nil && (most < 0 || most > math.MaxInt || length < 0 || length > mostMoBATokens || most > 0 && length > most) {
		f.Fail("it has %d tokens, MaxTokens %d", length, most)
	}
	if err := f.End(); err != nil {
		return nil, err
	}
	s, err := m.NewState(MoBAStateConfig{})
	if err != nil {
		return nil, err
	}
	switch _, err := s.tokens.ReadFrom(r); {
	case errors.Is(err, ErrFull):
		return nil, check.Errorf(ErrState, "sparse: state: %v", err)
	case err != nil:
		return nil, named(err)
	}
	if g, ok := s.tokens.Segment(0); int64(s.Len()) != length || length > 0 && (!ok || int64(g.Tokens) != length) {
		return nil, check.Errorf(ErrState, "sparse: state: it has %d tokens, want %d and all of them", s.Len(), length)
	}
	s.cfg.MaxTokens = int(most)
	return s, s.average(context.Background())
}
