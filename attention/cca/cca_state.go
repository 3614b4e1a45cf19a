package cca

import (
	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
)

// StateConfig says how a state keeps tokens and cores, and how many.
type StateConfig struct {
	// MaxTokens is the most tokens that the state will see; 0 for no limit. With a
	// limit the memory is taken at once, unless it is that of Pages.
	MaxTokens int
	// Rollback is how many tokens Truncate may take back from the most that the state
	// has seen: as many are kept beyond the window. 0 is none.
	Rollback int
	// Format is how keys and values of tokens and cores are stored, as in
	// attention.StateConfig: Float16 and BFloat16 take half the memory of Float32, Int8 a
	// quarter. Storing moves an element by at most 2^-9 of itself (BFloat16), 2^-12 of itself
	// (Float16) or 2^-8 of the largest of its head's (Int8). A core is pooled from its tokens
	// as they come, or as they were stored where an earlier step brought them: with a Format
	// other than Float32, outputs depend on how a sequence is cut into steps, by no more than
	// that loss.
	Format asm.Format
	// Pages takes memory from two pools, in whose Format tokens and cores are then stored.
	Pages *Pages
}

// Pages are pools of pages for the states of one operator, one for tokens and one for
// cores; see attention.Pages. They are safe for concurrent use.
type Pages struct{ tokens, cores *attention.Pages }

// NewPages returns pools without pages, each as cfg says, or an error that matches
// attention.ErrConfig. SharedValues and LogWeights are not used.
func (c *CCA) NewPages(cfg attention.PagesConfig) (*Pages, error) {
	if cfg.SharedValues || cfg.LogWeights {
		return nil, check.Errorf(attention.ErrConfig, "cca: SharedValues or LogWeights, want neither: a core has a value of its own and its level's weight")
	}
	tokens, err := c.att.NewPages(cfg)
	if err != nil {
		return nil, named(err)
	}
	cores, err := c.cores.NewPages(cfg)
	if err != nil {
		return nil, named(err)
	}
	return &Pages{tokens, cores}, nil
}

// Used returns how many pages of tokens and of cores states hold.
func (p *Pages) Used() (tokens, cores int) { return p.tokens.Used(), p.cores.Used() }

// Bytes returns the memory of all pages, free ones included.
func (p *Pages) Bytes() int64 { return p.tokens.Bytes() + p.cores.Bytes() }

// State is what CCA remembers of the tokens it has seen: their cores, and the
// Window + GroupSize - 1 last keys and values as they are, or fewer. No query is
// held: a group is pooled when its last token comes, and its tokens are released
// when they leave the window. With more than one level, cores are released too
// when queries have turned to the next level's. It is not safe for concurrent
// use.
type State struct {
	op     *CCA
	cfg    StateConfig
	length int64              // tokens seen
	tokens *attention.State   // of CCA.att: position i is token i
	levels []*attention.State // of CCA.cores, one for each level: position i is core i
}

// NewState returns the state before the first token, or an error that matches
// attention.ErrConfig.
func (c *CCA) NewState(cfg StateConfig) (*State, error) {
	switch {
	case cfg.MaxTokens < 0:
		return nil, check.Errorf(attention.ErrConfig, "cca: MaxTokens is %d, want 0 or more", cfg.MaxTokens)
	case int64(cfg.MaxTokens) >= 1<<40:
		return nil, check.Errorf(attention.ErrConfig, "cca: MaxTokens is %d, want less than 2^40", cfg.MaxTokens)
	case cfg.Rollback < 0 || int64(cfg.Rollback) > attention.MaxPosition:
		return nil, check.Errorf(attention.ErrConfig, "cca: Rollback is %d, want 0 to 2^60", cfg.Rollback)
	}
	s := &State{op: c, cfg: cfg}
	var err error
	if s.tokens, err = c.att.NewState(s.tokensConfig()); err != nil {
		return nil, named(err)
	}
	for l := range c.levels {
		cores, err := c.cores.NewState(s.coresConfig(l))
		if err != nil {
			return nil, named(err)
		}
		s.levels = append(s.levels, cores)
	}
	s.cfg.Format = s.tokens.Config().Format // of Pages, perhaps
	return s, nil
}

// tokensConfig is how tokens are kept: with MaxTokens, room for what is held, and a
// quarter more, so that it need not move at each step.
func (s *State) tokensConfig() attention.StateConfig {
	cfg := attention.StateConfig{Format: s.cfg.Format}
	if p := s.cfg.Pages; p != nil {
		cfg.Pages = p.tokens
	} else if most := int64(s.cfg.MaxTokens); most > 0 {
		c := s.op
		cfg.MaxTokens = roomFor(min(most, int64(c.cfg.Window+c.cfg.GroupSize+fewTokens)+int64(s.cfg.Rollback)), most)
	}
	return cfg
}

// coresConfig is how the cores of a level are kept, likewise.
func (s *State) coresConfig(level int) attention.StateConfig {
	cfg := attention.StateConfig{Format: s.cfg.Format}
	if p := s.cfg.Pages; p != nil {
		cfg.Pages = p.cores
	} else if most := int64(s.cfg.MaxTokens); most > 0 {
		c := s.op
		size := c.levels[level].size
		held, all := most, most/size
		if level+1 < len(c.levels) {
			up := c.levels[level+1]
			held = min(most, up.window+up.size+int64(s.cfg.Rollback)+int64(c.stretch))
		}
		cfg.MaxTokens = max(roomFor(min(held/size+2, all), all), 1)
	}
	return cfg
}

// roomFor is how many rows of memory let held of them, of all that there will ever be,
// be held at any time.
func roomFor(held, all int64) int { return int(min(held+held/4+1, all)) }

// Len returns how many tokens the state has seen.
func (s *State) Len() int { return int(s.length) }

// Bytes returns the memory of the state's keys and values; pages count whole, also those that are
// shared.
func (s *State) Bytes() int64 {
	n := s.tokens.Bytes()
	for _, cores := range s.levels {
		n += cores.Bytes()
	}
	return n
}

// Cores appends to list the cores of the first level that the state holds, oldest first,
// where they stand: a segment's Position is the number of its first group. They are valid
// until the state's next Step.
func (s *State) Cores(list []attention.Segment) []attention.Segment {
	return s.levels[0].Segments(list)
}

// Reset goes back to before the first token; pages go back to their pools, other memory
// stays.
func (s *State) Reset() {
	s.length = 0
	s.tokens.Reset()
	for _, cores := range s.levels {
		cores.Reset()
	}
}

// Clone returns a state that goes its own way from here. Pages are shared until one of
// the two writes to them; other memory is copied.
func (s *State) Clone() *State {
	c := *s
	c.tokens = s.tokens.Clone()
	c.levels = nil
	for _, cores := range s.levels {
		c.levels = append(c.levels, cores.Clone())
	}
	return &c
}

// Truncate goes back to the first n tokens. That much of the past must still be
// held, as it is for Rollback tokens and for all of them; otherwise it returns an
// error that matches attention.ErrState and changes nothing.
func (s *State) Truncate(n int) error {
	if s.op == nil {
		return check.Unmade("cca")
	}
	if n < 0 || int64(n) > s.length {
		return check.Errorf(attention.ErrState, "cca: a state of %d tokens cannot be truncated to %d", s.length, n)
	}
	if n == 0 {
		s.Reset()
		return nil
	}
	released := oldest(s.tokens) > s.op.needed(-1, int64(n))
	for l, cores := range s.levels {
		released = released || oldest(cores) > s.op.needed(l, int64(n))
	}
	if released {
		return check.Errorf(attention.ErrState, "cca: a state of %d tokens with Rollback %d cannot be truncated to %d: what those queries see has been released", s.length, s.cfg.Rollback, n)
	}
	if err := s.tokens.Truncate(n); err != nil {
		return named(err)
	}
	for l, cores := range s.levels {
		if err := cores.Truncate(int(int64(n) / s.op.levels[l].size)); err != nil {
			return named(err)
		}
	}
	s.length = int64(n)
	return nil
}

// oldest returns the position of the first token that a state holds.
func oldest(s *attention.State) int64 { return int64(s.Len() - s.Held()) }

// needed returns the first core of a level, or at level -1 the first token, that
// queries from position on see.
func (c *CCA) needed(level int, position int64) int64 {
	if level < 0 {
		from, _ := c.Window(position)
		return from
	}
	from, _ := c.coresOf(level, position)
	return from
}

// named gives an error of package attention this package's name.
func named(err error) error {
	if err == nil {
		return nil
	}
	return check.Named("cca", err)
}
