package cca

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/queue"
)

// StateConfig says in advance what a state will hold.
type StateConfig struct {
	// MaxTokens is the most tokens that the state will see; 0 for no limit. With a
	// limit the memory is taken at once.
	MaxTokens int
	// Rollback is how many tokens Truncate may take back from the most that the state
	// has seen: so many are held beyond the window.
	Rollback int
}

// State is what CCA remembers of the tokens it has seen: their cores, and the
// Window + Group - 1 last keys and values as they are, or fewer. No query is
// held: a group is pooled when its last token comes, and its tokens are released
// when they leave the window. With more than one level, cores are released too
// when queries have turned to the next level's. It is not safe for concurrent
// use.
type State struct {
	op     *CCA
	cfg    StateConfig
	length int64
	tokens queue.Queue
	levels []queue.Queue
}

// NewState returns the state before the first token, or an error that matches
// attention.ErrConfig.
func (c *CCA) NewState(cfg StateConfig) (*State, error) {
	switch {
	case cfg.MaxTokens < 0:
		return nil, check.Errorf(attention.ErrConfig, "cca: MaxTokens is %d, want 0 or more", cfg.MaxTokens)
	case cfg.Rollback < 0 || int64(cfg.Rollback) > attention.MaxPosition:
		return nil, check.Errorf(attention.ErrConfig, "cca: Rollback is %d, want 0 to 2^60", cfg.Rollback)
	}
	s := &State{op: c, cfg: cfg}
	s.tokens = queue.New(c.cfg.KVHeads*c.cfg.HeadDim, c.cfg.KVHeads*c.cfg.ValueDim)
	_, kCols, vCols := c.CoreShape(0)
	for range c.levels {
		s.levels = append(s.levels, queue.New(kCols, vCols))
	}
	if most := int64(cfg.MaxTokens); most > 0 {
		if !s.tokens.Addressable(most) || !s.levels[0].Addressable(most) {
			return nil, check.Errorf(attention.ErrConfig, "cca: MaxTokens is %d, too many for this machine's memory", most)
		}
		s.tokens.Reserve(roomFor(min(most, int64(c.cfg.Window+c.cfg.Group+fewTokens)+int64(cfg.Rollback)), most))
		for l := range c.levels {
			held, all := most, most/c.levels[l].size
			if l+1 < len(c.levels) {
				up := c.levels[l+1]
				held = min(most, up.window+up.size+int64(cfg.Rollback)+int64(c.stretch))
			}
			s.levels[l].Reserve(roomFor(min(held/c.levels[l].size+2, all), all))
		}
	}
	return s, nil
}

// roomFor is how many rows of memory let so many be held at any time.
func roomFor(held, all int64) int { return int(min(held+held/4+1, all)) }

// Len returns how many tokens the state has seen.
func (s *State) Len() int { return int(s.length) }

// Bytes returns the memory that the state holds.
func (s *State) Bytes() int64 {
	n := s.tokens.Bytes()
	for l := range s.levels {
		n += s.levels[l].Bytes()
	}
	return n
}

// Cores returns the cores of the first level that the state holds, oldest first,
// the first of them of the group numbered first. They are the state's own memory,
// valid until its next Step.
func (s *State) Cores() (first int64, k, v blas32.General) {
	q := &s.levels[0]
	return q.First, q.K(), q.V()
}

// Reset goes back to before the first token and keeps the memory.
func (s *State) Reset() {
	s.length = 0
	s.tokens.Clear()
	for l := range s.levels {
		s.levels[l].Clear()
	}
}

// Clone returns a copy that shares nothing with s.
func (s *State) Clone() *State {
	c := *s
	c.tokens = s.tokens.Clone()
	c.levels = nil
	for l := range s.levels {
		c.levels = append(c.levels, s.levels[l].Clone())
	}
	return &c
}

// Truncate goes back to the first n tokens. That much of the past must still be
// held, as it is for Rollback tokens and for all of them; otherwise it returns an
// error that matches attention.ErrCall and changes nothing.
func (s *State) Truncate(n int) error {
	if n < 0 || int64(n) > s.length {
		return check.Errorf(attention.ErrState, "cca: a state of %d tokens cannot be truncated to %d", s.length, n)
	}
	if n == 0 {
		s.Reset()
		return nil
	}
	to := int64(n)
	released := s.tokens.First > s.op.needed(-1, to)
	for l := range s.levels {
		released = released || s.levels[l].First > s.op.needed(l, to)
	}
	if released {
		return check.Errorf(attention.ErrState, "cca: a state of %d tokens with Rollback %d cannot be truncated to %d: what those queries see has been released", s.length, s.cfg.Rollback, n)
	}
	s.length = to
	s.tokens.Truncate(to)
	for l := range s.levels {
		s.levels[l].Truncate(to / s.op.levels[l].size)
	}
	return nil
}

// needed returns the first core of a level, or at level -1 the first token, that
// queries from position on see.
func (c *CCA) needed(level int, position int64) int64 {
	if level < 0 {
		from, _ := c.Window(position)
		return from
	}
	from, _ := c.cores(level, position)
	return from
}

// checkState reports a call that does not go with its state.
func (r *run) checkState(s *State) error {
	call := &r.call
	switch {
	case s.op != r.op:
		return check.Errorf(attention.ErrState, "cca: the state is of another operator")
	case call.Offsets != nil:
		return check.Errorf(attention.ErrCall, "cca: Offsets together with State")
	case call.CoreK.Data != nil || call.CoreV.Data != nil || call.Weights.Data != nil:
		return check.Errorf(attention.ErrCall, "cca: CoreK, CoreV or Weights together with State, want its Cores")
	case s.cfg.MaxTokens > 0 && int64(call.Q.Rows) > int64(s.cfg.MaxTokens)-s.length:
		return check.Errorf(attention.ErrCall, "cca: q has %d rows for a state of %d tokens with MaxTokens %d", call.Q.Rows, s.length, s.cfg.MaxTokens)
	case s.length > attention.MaxPosition-int64(call.Q.Rows):
		return check.Errorf(attention.ErrCall, "cca: the state has seen too many tokens")
	}
	return r.checkOutputs(0)
}

// runState attends from the call's tokens after those of the state, in stretches
// that bound what must be held at a time.
func (r *run) runState(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	call := &r.call
	for from := 0; from < call.Q.Rows; {
		to := min(from+r.op.stretch, call.Q.Rows)
		r.tokens = [3]blas32.General{mat.Rows(call.Q, from, to), mat.Rows(call.K, from, to), mat.Rows(call.V, from, to)}
		lse := call.LSE
		if lse.Rows > 0 {
			lse = mat.Rows(lse, from, to)
		}
		if err := r.step(ctx, mat.Rows(call.Dst, from, to), lse); err != nil {
			return err
		}
		from = to
	}
	return nil
}

// step does one stretch and commits it, or leaves the state as it was.
func (r *run) step(ctx context.Context, dst, lse blas32.General) (err error) {
	c, s := r.op, r.call.State
	n := r.tokens[0].Rows
	end := s.length + int64(n)
	for i := range r.levels {
		l, q := &r.levels[i], &s.levels[i]
		l.from = q.Rows
		q.Extend(int(end/c.levels[i].size - q.End()))
		l.first, l.k, l.v = q.First, q.K(), q.V()
		l.offsets = append(l.offsets[:0], 0, q.Rows)
	}
	defer func() {
		if err != nil {
			for i := range r.levels {
				s.levels[i].Truncate(s.levels[i].First + int64(r.levels[i].from))
			}
			s.tokens.Truncate(s.length)
		}
	}()
	if err := r.poolLevels(ctx); err != nil {
		return err
	}
	if n <= fewTokens && end <= math.MaxInt {
		s.tokens.Append(r.tokens[1], r.tokens[2])
		held, err := r.held.Of(c.att, s.tokens.K(), s.tokens.V(), s.tokens.First)
		if err != nil {
			return err
		}
		r.inner = attention.Call{State: held, Dst: dst, Q: r.tokens[0], LSE: lse}
	} else {
		r.inner = r.appended(dst, lse)
	}
	if err := r.attend(ctx); err != nil {
		return err
	}
	s.commit(r.tokens[1], r.tokens[2])
	return nil
}

// fewTokens is up to how many queries keys are read where they stand, and not
// packed first.
const fewTokens = 64

// appended is the call of many queries, whose keys are the state's and their own.
func (r *run) appended(dst, lse blas32.General) attention.Call {
	s := r.call.State
	r.k, r.v = [2]blas32.General{s.tokens.K(), r.tokens[1]}, [2]blas32.General{s.tokens.V(), r.tokens[2]}
	r.at[0], r.first[0] = s.length, s.tokens.First
	return attention.Call{Dst: dst, Q: r.tokens[0], K: r.k[:], V: r.v[:], LSE: lse, QueryPos: r.at[:], KeyPos: r.first[:]}
}

// commit takes up tokens whose groups have been pooled, and releases what no
// later query sees.
func (s *State) commit(k, v blas32.General) {
	c := s.op
	old := s.length
	s.length += int64(k.Rows)
	oldest := max(s.length-int64(s.cfg.Rollback), 0) // a query to come
	keep := c.needed(-1, oldest)
	if s.tokens.End() == s.length {
		s.tokens.Drop(keep)
	} else {
		s.tokens.Drop(min(keep, old))
		from := int(max(keep-old, 0))
		if s.tokens.Rows == 0 {
			s.tokens.First = old + int64(from)
		}
		s.tokens.Append(mat.Rows(k, from, k.Rows), mat.Rows(v, from, v.Rows))
	}
	for l := range s.levels {
		s.levels[l].Drop(c.needed(l, oldest))
	}
}
