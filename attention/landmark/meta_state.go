package landmark

import (
	"io"
	"math"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/queue"
	"github.com/subquad/subquad/internal/state"
)

// MetaState is what Meta remembers of the tokens it has seen: the keys and values
// of meta-tokens. It is not safe for concurrent use.
type MetaState struct {
	op     *Meta
	cfg    MetaStateConfig
	length int64
	tokens queue.Queue // of meta-tokens
}

// MetaStateConfig says in advance what a state will hold.
type MetaStateConfig struct {
	// MaxTokens is the most meta-tokens that the state will see; 0 for no limit. With
	// a limit the memory is taken at once.
	MaxTokens int
}

// NewState returns the state before the first token, or an error that matches
// attention.ErrConfig.
func (m *Meta) NewState(cfg MetaStateConfig) (*MetaState, error) {
	if cfg.MaxTokens < 0 {
		return nil, check.Errorf(attention.ErrConfig, "landmark: MaxTokens is %d, want 0 or more", cfg.MaxTokens)
	}
	op := &m.cfg
	s := &MetaState{op: m, cfg: cfg, tokens: queue.New(op.KVHeads*op.HeadDim, op.KVHeads*op.ValueDim)}
	if !s.tokens.Addressable(int64(cfg.MaxTokens)) {
		return nil, check.Errorf(attention.ErrConfig, "landmark: MaxTokens is %d, too many for this machine's memory", cfg.MaxTokens)
	}
	s.tokens.Reserve(cfg.MaxTokens)
	return s, nil
}

// Len returns how many tokens the state has seen, meta-tokens or not.
func (s *MetaState) Len() int { return int(s.length) }

// Bytes returns the memory that the state holds.
func (s *MetaState) Bytes() int64 { return s.tokens.Bytes() }

// Reset goes back to before the first token and keeps the memory.
func (s *MetaState) Reset() {
	s.length = 0
	s.tokens.Clear()
}

// Truncate takes back the last tokens, so that n are left: none of them or all, for
// which tokens were meta-tokens is not remembered. Errors match ErrState.
func (s *MetaState) Truncate(n int) error {
	switch {
	case n == 0:
		s.Reset()
	case int64(n) != s.length:
		return check.Errorf(attention.ErrState, "landmark: a state of %d tokens cannot be truncated to %d, want 0 or %d", s.length, n, s.length)
	}
	return nil
}

// Clone returns a copy that shares nothing with s.
func (s *MetaState) Clone() *MetaState {
	c := *s
	c.tokens = s.tokens.Clone()
	return &c
}

const metaKind = "sqMeta\x00\x01"

func (m *Meta) fingerprint() []int64 {
	cfg := &m.cfg
	return []int64{int64(cfg.Heads), int64(cfg.KVHeads), int64(cfg.HeadDim), int64(cfg.ValueDim), int64(math.Float32bits(cfg.Scale))}
}

// WriteTo writes the state, for a ReadState of an operator of the same
// configuration, on any machine.
func (s *MetaState) WriteTo(w io.Writer) (int64, error) {
	f := state.NewWriter(w, metaKind, s.op.fingerprint())
	f.Ints(int64(s.cfg.MaxTokens), s.length, int64(s.tokens.Rows))
	s.tokens.WriteTo(f)
	return f.End()
}

// ReadState reads what WriteTo wrote. Errors match attention.ErrState, or are r's. No more
// memory is taken than there are bytes to read.
func (m *Meta) ReadState(r io.Reader) (*MetaState, error) {
	f := state.NewReader(r, "landmark", attention.ErrState, metaKind, m.fingerprint())
	s, err := m.NewState(MetaStateConfig{})
	if err != nil {
		return nil, err
	}
	most := f.Int()
	s.length = f.Int()
	rows := f.Int()
	if f.Err() == nil && (most < 0 || most > math.MaxInt32 || s.length < 0 || s.length > attention.MaxPosition || rows < 0 || rows > s.length || most > 0 && rows > most) {
		f.Fail("it has %d meta-tokens among %d tokens, MaxTokens %d", rows, s.length, most)
	}
	s.cfg.MaxTokens = int(most)
	s.tokens.ReadFrom(f, 0, rows)
	if err := f.End(); err != nil {
		return nil, err
	}
	return s, nil
}
