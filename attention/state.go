package attention

import (
	"math"
	"slices"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/rope"
)

// StateConfig says how a State keeps keys and values.
type StateConfig struct {
	// MaxTokens is the most tokens that the state may have: memory for them is taken
	// at once, and a step beyond is an error that matches ErrFull. With 0 there is no
	// bound; memory grows by doubling. A ring needs no bound.
	MaxTokens int
	// Format is how keys and values are stored; 0 is Float32. Float16 and BFloat16 take half the
	// memory of Float32, Int8 a quarter. Arithmetic is float32 on the numbers read back.
	// Float16 ends at 65,504: larger finite numbers are stored as that.
	//
	// Int8 is symmetric, with a scale for each head and token; with SharedValues the part
	// of a key that is its value has one of its own. A row of which a few features are
	// much larger than the rest is stored multiplied by an orthogonal matrix of signs,
	// which spreads them over the row; reading it back undoes that. What each storage adds
	// to outputs, relative to their size (root mean square, heads of 64, 512 tokens, queries and
	// values N(0, 1), in every tier; go test ./attention -run 'StorageError|Int8' -v):
	//
	//	keys                                   Float32  Float16  BFloat16  Int8
	//	N(0, 1)                                5e-7     2.9e-4   2.4e-3    8.3e-3
	//	one feature moved by 300               8e-6     .010     .077      .093
	//	a pair of features of 300 that turns   8e-6     .010     .084      .092
	//	three features moved by ±300           1e-5     .015     .12       .25
	//	MLA's, latent .03, rotated key 1                2.2e-4   1.6e-3    7.3e-3
	Format asm.Format
	// Window makes the state a ring that holds, and lets be seen, only the last
	// Window tokens, a query's own included, and the first Keep ones (attention sinks;
	// Xiao et al. 2023, arXiv 2309.17453). 0 keeps all.
	Window, Keep int
	// Pages takes memory from a pool, whose Format, SharedValues and LogWeights hold.
	Pages *Pages
	// Table and Tokens begin the state with pages of Pages, by their numbers, the
	// last one perhaps not full: a prefix that other states hold. They stay shared
	// until the state writes to them.
	Table  []int
	Tokens int
	// SharedValues makes the first ValueDim columns of a key its value, as in
	// multi-head latent attention; Step then takes no values.
	SharedValues bool
	// LogWeights keeps a log-weight for each token and key head, which Call.LogWeights
	// gives with the keys, or 0: of tokens that were merged, say.
	LogWeights bool
	// Rotation, if not nil, is what Step rotates queries and keys by, in their
	// positions; Policy says when, and so in which form keys are stored: rotated
	// under rope.Fixed, where the frequencies are those of Rotation.Length; rotated,
	// and again when frequencies change, under rope.Rerotate (Float32 only, without
	// Pages); unrotated under rope.EachStep, which rotates all of them at each step.
	// With nil, queries and keys are taken and stored as they come.
	Rotation *rope.Config
	Policy   rope.Policy
}

// State is the keys and values of a sequence so far, for an operator that is
// causal. It is not safe for concurrent use; different states are, also those
// that share pages.
//
// A state knows the position of every token that it holds. All tokens are held that
// it has seen, but for those that a ring has overwritten, Forget has let go, or Keep
// has left out; later queries attend to the tokens held, at their own positions.
type State struct {
	op      *Attention
	cfg     StateConfig
	n       int      // tokens seen: the position of the next
	high    int      // of a ring: tokens ever written; those before high-ring are overwritten
	reached int      // the longest that it was, for the schedule
	blocks  []*block // one, or pages

	// Of the tokens held, except in a ring. Row r of them, oldest first, stands in
	// row skip+r of the blocks.
	skip  int     // rows of memory before the oldest
	first int     // position of the oldest, where list is nil
	list  []int64 // position of each, after a Keep that left gaps; otherwise they follow each other
	floor int     // what Truncate cannot go below, 0 apart

	schedule *rope.Schedule
	rotation *rope.Rotation // of the last step
	before   rope.Schedule  // the schedule before it
}

// slack is by how many tokens a ring is larger than its window: how many may be
// appended at once, and taken back.
const slack = 64

// NewState returns an empty state, or an error that matches ErrConfig.
func (a *Attention) NewState(cfg StateConfig) (*State, error) {
	if cfg.Pages != nil {
		p := &cfg.Pages.cfg
		cfg.Format, cfg.SharedValues, cfg.LogWeights = p.Format, p.SharedValues, p.LogWeights
	}
	if err := a.checkStateConfig(&cfg); err != nil {
		return nil, err
	}
	s := &State{op: a, cfg: cfg}
	if cfg.Rotation != nil {
		rotation := *cfg.Rotation
		rotation.Workers = 1
		s.cfg.Rotation = &rotation
		schedule, err := rope.NewSchedule(rotation, cfg.Policy)
		if err != nil {
			return nil, check.Errorf(ErrConfig, "attention: Rotation: %v", err)
		}
		s.schedule = schedule
		if r, _, _ := schedule.Step(0); r == nil || r.Axes() != 1 {
			return nil, check.Errorf(ErrConfig, "attention: Rotation has several axes, want one")
		}
		s.restart()
	}
	var err error
	switch {
	case cfg.Pages != nil:
		s.cfg.Table = nil
		s.blocks, err = cfg.Pages.adopt(cfg.Table)
		s.n, s.high, s.reached = cfg.Tokens, cfg.Tokens, cfg.Tokens
	case cfg.Window > 0:
		if err = a.checkRoom(&cfg, s.ringTokens()); err == nil {
			s.blocks = []*block{a.newBlock(&cfg, s.ringTokens())}
		}
	case cfg.MaxTokens > 0:
		if err = a.checkRoom(&cfg, cfg.MaxTokens); err == nil {
			s.blocks = []*block{a.newBlock(&cfg, cfg.MaxTokens)}
		}
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// checkStateConfig checks a configuration.
func (a *Attention) checkStateConfig(cfg *StateConfig) error {
	fail := func(format string, args ...any) error {
		return check.Errorf(ErrConfig, "attention: "+format, args...)
	}
	ahead := a.cfg.LookAhead
	switch {
	case ahead == nil || *ahead != 0:
		return fail("a State of an operator that is not causal: its outputs would depend on tokens to come")
	case cfg.MaxTokens < 0:
		return fail("MaxTokens is %d, want 0 or more", cfg.MaxTokens)
	case cfg.Format > asm.Float16:
		return fail("Format is %d, want Float32, BFloat16, Int8 or Float16", uint8(cfg.Format))
	case cfg.Window < 0 || cfg.Keep < 0:
		return fail("Window is %d and Keep %d, want 0 or more", cfg.Window, cfg.Keep)
	case cfg.Keep > 0 && cfg.Window == 0:
		return fail("Keep is %d without a Window", cfg.Keep)
	case cfg.Window > 1<<30 || cfg.Keep > 1<<29:
		return fail("Window is %d and Keep %d, want at most 2^30 and 2^29", cfg.Window, cfg.Keep)
	case cfg.Window > 0 && cfg.Pages != nil:
		return fail("Window together with Pages")
	case cfg.Window > 0 && cfg.MaxTokens > 0:
		return fail("Window together with MaxTokens")
	case cfg.SharedValues && a.cfg.ValueDim > a.cfg.HeadDim:
		return fail("SharedValues with ValueDim %d, want at most HeadDim = %d", a.cfg.ValueDim, a.cfg.HeadDim)
	case cfg.Pages == nil && (cfg.Table != nil || cfg.Tokens != 0):
		return fail("Table or Tokens without Pages")
	case cfg.Pages != nil && (cfg.Pages.op == nil || cfg.Pages.op.print != a.print):
		return fail("Pages is the pool of another operator")
	case cfg.Rotation != nil && cfg.Rotation.HeadDim != a.cfg.HeadDim:
		return fail("Rotation.HeadDim is %d, want HeadDim = %d", cfg.Rotation.HeadDim, a.cfg.HeadDim)
	case cfg.Rotation != nil && check.Workers(ErrConfig, "attention", cfg.Rotation.Workers) != nil:
		return check.Workers(ErrConfig, "attention: Rotation", cfg.Rotation.Workers)
	case cfg.Rotation != nil && cfg.Rotation.XPos != nil:
		return fail("Rotation with XPos, whose queries and keys are scaled by their distance")
	case cfg.Rotation != nil && cfg.Policy == rope.Rerotate && (cfg.Format != asm.Float32 || cfg.Pages != nil || cfg.SharedValues):
		return fail("Policy Rerotate, want Float32 keys of their own, without Pages or SharedValues")
	case cfg.Rotation != nil && cfg.SharedValues:
		return fail("Rotation together with SharedValues")
	}
	if p := cfg.Pages; p != nil {
		t := p.cfg.PageTokens
		if most := len(cfg.Table) * t; cfg.Tokens < 0 || cfg.Tokens > most || cfg.Tokens <= most-t {
			return fail("Tokens is %d for %d pages of %d tokens", cfg.Tokens, len(cfg.Table), t)
		}
		if cfg.MaxTokens > 0 && cfg.Tokens > cfg.MaxTokens {
			return fail("Tokens is %d, want at most MaxTokens = %d", cfg.Tokens, cfg.MaxTokens)
		}
	}
	return nil
}

// checkRoom checks that the bytes of a number of tokens are few enough to be asked for.
func (a *Attention) checkRoom(cfg *StateConfig, tokens int) error {
	const most = min(math.MaxInt/2, 1<<42)
	if float64(tokens)*float64(a.tokenBytes(cfg)) > most {
		return check.Errorf(ErrConfig, "attention: %d tokens of %d bytes are more than memory can hold", tokens, a.tokenBytes(cfg))
	}
	return nil
}

// ringTokens is how many tokens a ring has memory for at the most, ring how many of
// them go round.
func (s *State) ringTokens() int { return s.cfg.Keep + s.ring() }
func (s *State) ring() int       { return s.cfg.Window + slack }

// Len returns how many tokens the state has seen, which may be more than it holds: see
// Held.
func (s *State) Len() int { return s.n }

// Bytes returns the memory of the keys and values; pages count whole, also those
// that are shared.
func (s *State) Bytes() (n int64) {
	for _, b := range s.blocks {
		n += int64(b.tokens()) * s.op.tokenBytes(&s.cfg)
	}
	return n + 8*int64(cap(s.list))
}

// StateBytes returns what State.Bytes will be for a state of that many tokens that
// is not a ring and not paged.
func (a *Attention) StateBytes(cfg StateConfig, tokens int) int64 {
	return int64(tokens) * a.tokenBytes(&cfg)
}

// Reset forgets all tokens; pages go back to their pool, other memory stays.
func (s *State) Reset() {
	s.n, s.high, s.reached = 0, 0, 0
	s.skip, s.first, s.floor, s.list = 0, 0, 0, nil
	s.trim()
	s.restart()
}

// restart begins the schedule again.
func (s *State) restart() {
	if s.schedule != nil {
		s.schedule, _ = rope.NewSchedule(*s.cfg.Rotation, s.cfg.Policy) // as NewState did
		s.rotation = nil
	}
}

// Truncate takes back the last tokens, so that n are left. It is an error that
// matches ErrState, and changes nothing, where n is negative or more than Len, or
// where the tokens before n are not held any more as they were then: a ring can take
// back 64 tokens at the most, until it has been filled any number; after a Keep those
// that came later can be taken back, after a Forget those that it left; and all of
// them, to 0, always.
func (s *State) Truncate(n int) error {
	if n < 0 || n > s.n {
		return check.Errorf(ErrState, "attention: Truncate to %d tokens of a state with %d", n, s.n)
	}
	if w := s.cfg.Window; w > 0 && s.high > s.ringTokens() && n < s.high-slack {
		return check.Errorf(ErrState, "attention: Truncate to %d tokens of a ring that had %d, want at least %d", n, s.high, s.high-slack)
	}
	if n == 0 && s.floor > 0 {
		s.Reset()
		return nil
	}
	if n < s.floor {
		return check.Errorf(ErrState, "attention: Truncate to %d tokens of a state that has forgotten some, want 0 or at least %d", n, s.floor)
	}
	if s.list != nil {
		s.list = s.list[:s.rowsBefore(n)]
	}
	s.n = n
	s.trim()
	return nil
}

// trim gives back the pages after the last token.
func (s *State) trim() {
	if p := s.cfg.Pages; p != nil {
		keep := (s.skip + s.Held() + p.cfg.PageTokens - 1) / p.cfg.PageTokens
		p.release(s.blocks[keep:])
		clear(s.blocks[keep:])
		s.blocks = s.blocks[:keep]
	}
}

// Clone returns a state that goes its own way from here: a fork. Pages are shared
// until one of the two writes to them; other memory is copied.
func (s *State) Clone() *State {
	c := *s
	if s.schedule != nil {
		schedule := *s.schedule
		c.schedule = &schedule
	}
	c.blocks = append([]*block(nil), s.blocks...)
	c.list = slices.Clone(s.list)
	if s.cfg.Pages != nil {
		s.cfg.Pages.addRefs(c.blocks)
		return &c
	}
	for i, b := range s.blocks {
		c.blocks[i] = s.op.newBlock(&s.cfg, b.tokens())
		c.blocks[i].moveRows(0, b, 0, min(s.rowsUsed(), b.tokens()))
	}
	return &c
}

// CopyFrom makes the state what another of the same operator and StateConfig is, which it
// must not be used together with; another StateConfig becomes that of the state. It
// allocates nothing where the state has memory for as many tokens, and neither has pages
// or has forgotten any. Errors match ErrState.
func (s *State) CopyFrom(from *State) error {
	switch {
	case from == nil:
		return check.NilState("attention", "the state to copy")
	case s.op == nil || from.op == nil:
		return check.Unmade("attention")
	case from.op.print != s.op.print:
		return check.Errorf(ErrState, "attention: CopyFrom a state of an operator of another Config")
	case from == s:
		return nil
	}
	a, b := &s.cfg, &from.cfg
	alike := a.Pages == nil && b.Pages == nil && a.Format == b.Format && a.SharedValues == b.SharedValues && a.LogWeights == b.LogWeights
	used := from.rowsUsed()
	if !alike || from.list != nil || len(s.blocks) == 0 || len(from.blocks) == 0 || s.blocks[0].tokens() < used ||
		b.Window > 0 && s.blocks[0].tokens() != from.blocks[0].tokens() {
		c := from.Clone()
		if s.cfg.Pages != nil {
			s.cfg.Pages.release(s.blocks)
		}
		*s = *c
		return nil
	}
	s.blocks[0].moveRows(0, from.blocks[0], 0, min(used, from.blocks[0].tokens()))
	memory, schedule := s.blocks, s.schedule
	*s = *from
	if s.blocks = memory; s.schedule != nil {
		if schedule == nil {
			schedule = new(rope.Schedule)
		}
		*schedule = *from.schedule
		s.schedule = schedule
	}
	return nil
}

// Table returns the numbers of a paged state's pages, for StateConfig.Table; there are
// none of pages that are Collected.
func (s *State) Table() (list []int) {
	if s.cfg.Pages != nil && !s.cfg.Pages.cfg.Collected {
		for _, b := range s.blocks {
			list = append(list, b.id)
		}
	}
	return list
}
