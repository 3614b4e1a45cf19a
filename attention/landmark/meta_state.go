package landmark

import (
	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/state"
)

// MetaStateConfig says how a state keeps meta-tokens, and how many.
type MetaStateConfig struct {
	// MaxTokens is the most meta-tokens that the state will see; 0 for no limit. With
	// a limit the memory is taken at once, unless it is that of Pages.
	MaxTokens int
	// Format is how keys and values are stored, and Pages a pool of NewPages that memory
	// is taken from, in whose Format they are then stored: as in attention.StateConfig.
	Format asm.Format
	Pages  *attention.Pages
}

// MetaState is what Meta remembers of the tokens it has seen: the keys and values
// of meta-tokens. It is not safe for concurrent use.
type MetaState struct {
	op     *Meta
	cfg    MetaStateConfig
	length int64            // tokens seen, meta-tokens or not
	tokens *attention.State // meta-tokens, numbered from 0
}

// NewState returns the state before the first token, or an error that matches
// attention.ErrConfig.
func (m *Meta) NewState(cfg MetaStateConfig) (*MetaState, error) {
	switch {
	case cfg.MaxTokens < 0:
		return nil, check.Errorf(attention.ErrConfig, "landmark: MaxTokens is %d, want 0 or more", cfg.MaxTokens)
	case int64(cfg.MaxTokens) >= 1<<40:
		return nil, check.Errorf(attention.ErrConfig, "landmark: MaxTokens is %d, want less than 2^40", cfg.MaxTokens)
	}
	tokens, err := m.att.NewState(attention.StateConfig{MaxTokens: cfg.MaxTokens, Format: cfg.Format, Pages: cfg.Pages})
	if err != nil {
		return nil, named(err)
	}
	cfg.Format = tokens.Config().Format
	return &MetaState{op: m, cfg: cfg, tokens: tokens}, nil
}

// NewPages returns a pool of pages for the operator's states, or an error that matches
// attention.ErrConfig. SharedValues and LogWeights are not used.
func (m *Meta) NewPages(cfg attention.PagesConfig) (*attention.Pages, error) {
	return newPages(m.att, cfg)
}

func (s *MetaState) owner() state.Fingerprint {
	if s.op == nil {
		return 0
	}
	return s.op.print
}

// Len returns how many tokens the state has seen, meta-tokens or not.
func (s *MetaState) Len() int { return int(s.length) }

// Bytes returns the memory of the state's keys and values; pages count whole, also those that are
// shared.
func (s *MetaState) Bytes() int64 { return s.tokens.Bytes() }

// Reset goes back to before the first token; pages go back to their pool, other memory
// stays.
func (s *MetaState) Reset() {
	s.length = 0
	s.tokens.Reset()
}

// Truncate takes back the last tokens, so that n are left: none of them or all, for
// which tokens were meta-tokens is not remembered. Errors match ErrState.
func (s *MetaState) Truncate(n int) error {
	if s.op == nil {
		return check.Unmade("landmark")
	}
	switch {
	case n == 0:
		s.Reset()
	case int64(n) != s.length:
		return check.Errorf(attention.ErrState, "landmark: a state of %d tokens cannot be truncated to %d, want 0 or %d", s.length, n, s.length)
	}
	return nil
}

// Clone returns a state that goes its own way from here. Pages are shared until one of
// the two writes to them; other memory is copied.
func (s *MetaState) Clone() *MetaState {
	c := *s
	c.tokens = s.tokens.Clone()
	return &c
}
