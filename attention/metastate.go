package attention

import (
	"io"
	"math"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/state"
)

// MetaState is what Meta remembers of the tokens it has seen: the keys and values
// of meta-tokens. It is not safe for concurrent use.
type MetaState struct {
	op     *Meta
	cfg    MetaStateConfig
	length int64
	tokens queue // of meta-tokens
}

// MetaStateConfig says in advance what a state will hold.
type MetaStateConfig struct {
	// MaxTokens is the most meta-tokens that the state will see; 0 for no limit. With
	// a limit the memory is taken at once.
	MaxTokens int
}

// NewState returns the state before the first token, or an error that matches
// ErrConfig.
func (m *Meta) NewState(cfg MetaStateConfig) (*MetaState, error) {
	if cfg.MaxTokens < 0 {
		return nil, check.Errorf(ErrConfig, "attention: MaxTokens is %d, want 0 or more", cfg.MaxTokens)
	}
	op := &m.att.cfg
	s := &MetaState{op: m, cfg: cfg, tokens: newQueue(op.KVHeads*op.HeadDim, op.KVHeads*op.ValueDim)}
	if !s.tokens.addressable(int64(cfg.MaxTokens)) {
		return nil, check.Errorf(ErrConfig, "attention: MaxTokens is %d, too many for this machine's memory", cfg.MaxTokens)
	}
	s.tokens.reserve(cfg.MaxTokens)
	return s, nil
}

// Len returns how many tokens the state has seen, meta-tokens or not.
func (s *MetaState) Len() int { return int(s.length) }

// Bytes returns the memory that the state holds.
func (s *MetaState) Bytes() int64 { return s.tokens.bytes() }

// Reset goes back to before the first token and keeps the memory.
func (s *MetaState) Reset() {
	s.length = 0
	s.tokens.clear()
}

// Clone returns a copy that shares nothing with s.
func (s *MetaState) Clone() *MetaState {
	c := *s
	c.tokens = s.tokens.clone()
	return &c
}

const metaKind = "sqMeta\x00\x01"

func (m *Meta) fingerprint() []int64 {
	cfg := &m.att.cfg
	return []int64{int64(cfg.Heads), int64(cfg.KVHeads), int64(cfg.HeadDim), int64(cfg.ValueDim), int64(math.Float32bits(cfg.Scale))}
}

// WriteTo writes the state, for a ReadState of an operator of the same
// configuration, on any machine.
func (s *MetaState) WriteTo(w io.Writer) (int64, error) {
	f := state.NewWriter(w, metaKind, s.op.fingerprint())
	f.Ints(int64(s.cfg.MaxTokens), s.length, int64(s.tokens.rows))
	s.tokens.writeTo(f)
	return f.End()
}

// ReadState reads what WriteTo wrote. Errors match ErrState, or are r's. No more
// memory is taken than there are bytes to read.
func (m *Meta) ReadState(r io.Reader) (*MetaState, error) {
	f := state.NewReader(r, "attention", ErrState, metaKind, m.fingerprint())
	s, err := m.NewState(MetaStateConfig{})
	if err != nil {
		return nil, err
	}
	most := f.Int()
	s.length = f.Int()
	rows := f.Int()
	if f.Err() == nil && (most < 0 || most > math.MaxInt32 || s.length < 0 || s.length > maxPosition || rows < 0 || rows > s.length || most > 0 && rows > most) {
		f.Fail("it has %d meta-tokens among %d tokens, MaxTokens %d", rows, s.length, most)
	}
	s.cfg.MaxTokens = int(most)
	s.tokens.readFrom(f, 0, rows)
	if err := f.End(); err != nil {
		return nil, err
	}
	return s, nil
}
