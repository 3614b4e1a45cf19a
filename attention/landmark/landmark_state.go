package landmark

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
)

// StateConfig says how a state keeps blocks, and how many.
type StateConfig struct {
	// MaxBlocks is the most blocks that the state keeps: the oldest are forgotten. 0
	// is no limit.
	MaxBlocks int
	// Format is how keys and values of blocks are stored, as in attention.StateConfig:
	// Float16 and BFloat16 take half the memory of Float32, Int8 a quarter. Landmarks, and
	// the tokens after the last one, stay Float32: which blocks are chosen does not depend
	// on it.
	Format asm.Format
	// Pages takes the blocks' memory from a pool of NewPages, in whose Format they are then stored.
	// PageTokens of Config.Block, or a multiple of it, let blocks be read where they stand.
	Pages *attention.Pages
}

// mostTokens bounds the tokens of a state.
const mostTokens = min(attention.MaxPosition, math.MaxInt/2)

// State is what Landmark.Step remembers of the tokens it has seen: the
// keys and values of whole blocks, and the tokens since the last landmark. It is
// not safe for concurrent use.
type State struct {
	op        *Landmark
	cfg       StateConfig
	length    int64            // tokens seen, landmarks among them
	blocks    *attention.State // tokens of whole blocks, rotated as if each began at position 0: token j of block b is at b*Block + j
	landmarks *attention.State // landmarks of whole blocks, rotated likewise: that of block b is at b
	tail      *attention.State // tokens after the last landmark, not rotated, from 0 on
}

// NewState returns the state before the first token, or an error that matches
// attention.ErrConfig.
func (l *Landmark) NewState(cfg StateConfig) (*State, error) {
	if cfg.MaxBlocks < 0 {
		return nil, check.Errorf(attention.ErrConfig, "landmark: MaxBlocks is %d, want 0 or more", cfg.MaxBlocks)
	}
	s := &State{op: l, cfg: cfg}
	for _, x := range [...]struct {
		to  **attention.State
		cfg attention.StateConfig
	}{
		{&s.blocks, attention.StateConfig{Format: cfg.Format, Pages: cfg.Pages}},
		{&s.landmarks, attention.StateConfig{}},
		{&s.tail, attention.StateConfig{}},
	} {
		var err error
		if *x.to, err = l.held.NewState(x.cfg); err != nil {
			return nil, named(err)
		}
	}
	s.cfg.Format = s.blocks.Config().Format
	return s, nil
}

// NewPages returns a pool of pages for the blocks of the operator's states, or an error
// that matches attention.ErrConfig. SharedValues and LogWeights are not used.
func (l *Landmark) NewPages(cfg attention.PagesConfig) (*attention.Pages, error) {
	return newPages(l.held, cfg)
}

func newPages(a *attention.Attention, cfg attention.PagesConfig) (*attention.Pages, error) {
	if cfg.SharedValues || cfg.LogWeights {
		return nil, check.Errorf(attention.ErrConfig, "landmark: SharedValues or LogWeights of Pages, want neither")
	}
	p, err := a.NewPages(cfg)
	return p, named(err)
}

// owner is the operator's fingerprint, 0 for a state that NewState has not made.
func (s *State) owner() state.Fingerprint {
	if s.op == nil {
		return 0
	}
	return s.op.print
}

// Len returns how many tokens the state has seen, landmarks among them.
func (s *State) Len() int { return int(s.length) }

// Blocks returns how many whole blocks the state holds.
func (s *State) Blocks() int { return s.landmarks.Held() }

// Bytes returns the memory of the state's keys and values; pages count whole, also those that are
// shared.
func (s *State) Bytes() int64 { return s.blocks.Bytes() + s.landmarks.Bytes() + s.tail.Bytes() }

// Reset goes back to before the first token; pages go back to their pool, other memory
// stays.
func (s *State) Reset() {
	s.length = 0
	s.blocks.Reset()
	s.landmarks.Reset()
	s.tail.Reset()
}

// Truncate takes back the last tokens, so that n are left. It can go back no further
// than the last landmark, keys of whole blocks being held rotated within their block,
// or all the way to 0; otherwise it returns an error that matches ErrState and changes
// nothing.
func (s *State) Truncate(n int) error {
	if s.op == nil {
		return check.Unmade("landmark")
	}
	back, tail := s.length-int64(n), int64(s.tail.Len())
	switch {
	case n < 0 || back < 0 || back > tail && n > 0:
		return check.Errorf(attention.ErrState, "landmark: a state of %d tokens cannot be truncated to %d, want 0 or at least %d", s.length, n, s.length-tail)
	case n == 0:
		s.Reset()
		return nil
	}
	if err := s.tail.Truncate(int(tail - back)); err != nil {
		return named(err)
	}
	s.length -= back
	return nil
}

// Clone returns a state that goes its own way from here. Pages are shared until one of
// the two writes to them; other memory is copied.
func (s *State) Clone() *State {
	c := *s
	c.blocks, c.landmarks, c.tail = s.blocks.Clone(), s.landmarks.Clone(), s.tail.Clone()
	return &c
}

// start returns the position of the next token.
func (s *State) start() int64 {
	period := int64(s.op.period())
	return min(s.length/period, int64(s.op.cfg.TopK)+1)*period + int64(s.tail.Len())
}

// held returns the keys and values of a state of float32 without pages, where they stand.
func held(s *attention.State) (k, v blas32.General) {
	g, ok := s.Segment(s.Len() - s.Held())
	if ok {
		k, v, _ = g.Float32()
	}
	return k, v
}

// commit has the state take up the tokens of a call, or leaves it as it was.
func (r *run) commit() error {
	s, c, l := r.state, &r.call, r.op
	cfg, period := &l.cfg, l.period()
	tailK, tailV := held(s.tail)
	whole := (tailK.Rows + c.k.Rows) / period
	if whole == 0 {
		if err := s.tail.Append(c.k, c.v); err != nil {
			return named(err)
		}
		s.length += int64(c.k.Rows)
		return nil
	}
	var parts [4]blas32.General
	for i, x := range [...]blas32.General{c.k, c.v, c.k, c.v} {
		rows := whole
		if i < 2 {
			rows *= cfg.Block
		}
		r.whole[i] = scratch.Floats(r.whole[i], rows*x.Cols)
		parts[i] = mat.Of(r.whole[i], rows, x.Cols)
	}
	for t := range whole * period {
		k, v, row := c.k, c.v, t-tailK.Rows
		if row < 0 {
			k, v, row = tailK, tailV, t
		}
		b, j := t/period, t%period
		toK, toV, at := parts[0], parts[1], b*cfg.Block+j
		if j == cfg.Block {
			toK, toV, at = parts[2], parts[3], b
		}
		copy(mat.Row(toK, at), mat.Row(k, row))
		copy(mat.Row(toV, at), mat.Row(v, row))
	}
	if rotation := l.turn; rotation != nil {
		for b := range whole {
			err := rotation.Rotate(mat.Rows(parts[0], b*cfg.Block, (b+1)*cfg.Block), 0)
			if err == nil {
				err = rotation.Rotate(mat.Rows(parts[2], b, b+1), int64(cfg.Block))
			}
			if err != nil {
				return err
			}
		}
	}
	before := s.blocks.Len()
	if err := s.blocks.Append(parts[0], parts[1]); err != nil {
		return named(err)
	}
	if err := s.landmarks.Append(parts[2], parts[3]); err != nil {
		s.blocks.Truncate(before)
		return named(err)
	}
	if most := s.cfg.MaxBlocks; most > 0 && s.Blocks() > most {
		s.blocks.Forget(s.blocks.Len() - most*cfg.Block)
		s.landmarks.Forget(s.landmarks.Len() - most)
	}
	s.tail.Reset()
	rest := whole*period - tailK.Rows // of the call's tokens, those in whole blocks
	if err := s.tail.Append(mat.Rows(c.k, rest, c.k.Rows), mat.Rows(c.v, rest, c.v.Rows)); err != nil {
		return named(err)
	}
	s.length += int64(c.k.Rows)
	return nil
}
