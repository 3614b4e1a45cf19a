package kvcache

import (
	"math"
	"slices"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/state"
)

// StateConfig says how a State keeps keys and values.
type StateConfig struct {
	// MaxTokens, Format and Pages are those of attention.StateConfig; a pool is one of
	// Attention.NewPages, and its pages have room for one key head. One with a Folder holds
	// keys and values in a file, of which memory needs what is read: with a selector a few
	// per cent. What policies know of tokens (Shadow's copy, Quest's bounds) is in memory.
	MaxTokens int
	Format    asm.Format
	Pages     *attention.Pages
	// Snapshots is how many earlier versions of itself the state keeps, those before each
	// of its last calls, for Truncate: running scores and cached choices are put back,
	// and with an Evictor what it has forgotten since. Without, Truncate goes as far as
	// the policies allow by themselves. 0 is none.
	Snapshots int
}

// maxSnapshots bounds StateConfig.Snapshots.
const maxSnapshots = 1 << 16

// State is the keys and values of a sequence so far, what its policies know of them, and
// nothing of what they have forgotten. Each key head is a sequence of its own, so that
// heads may hold different tokens, and as many as each needs. It is not safe for
// concurrent use.
type State struct {
	op    *Attention
	cfg   StateConfig
	heads []*attention.State // of the key heads
	n     int                // tokens seen
	at    [][]int            // positions of what each head holds, nil where nothing is forgotten
	index index              // of Config.Select, or nil
	marks memory             // of Config.Evict
	ring  state.Ring[*Mark]
	floor int // tokens before which something has been forgotten
	trace *trace

	// Working memory of evictors.
	rows   []int32
	scores [][]float32
	stay   [][]int32
	seen   Observation
}

// NewState returns an empty state, or an error that matches ErrConfig.
func (a *Attention) NewState(cfg StateConfig) (*State, error) {
	if cfg.Snapshots < 0 || cfg.Snapshots > maxSnapshots {
		return nil, check.Errorf(ErrConfig, "kvcache: Snapshots is %d, want 0 to %d", cfg.Snapshots, maxSnapshots)
	}
	s := &State{op: a, cfg: cfg, at: make([][]int, a.cfg.KVHeads)}
	for range a.cfg.KVHeads {
		st, err := a.op.NewState(attention.StateConfig{MaxTokens: cfg.MaxTokens, Format: cfg.Format, Pages: cfg.Pages})
		if err != nil {
			return nil, named(err)
		}
		s.heads = append(s.heads, st)
	}
	s.cfg.Format = s.heads[0].Config().Format
	s.forgetPolicies()
	s.ring = newRing(cfg.Snapshots)
	return s, nil
}

// newRing returns a ring of versions, each made when it is first needed: a file may ask for
// many.
func newRing(n int) state.Ring[*Mark] {
	return state.NewRing(n, func() *Mark { return nil })
}

// forgetPolicies makes what policies know anew.
func (s *State) forgetPolicies() {
	cfg := &s.op.cfg
	s.index = nil
	if cfg.Select != nil {
		s.index = cfg.Select.newIndex(s.op)
	}
	s.marks = newMemory(s.op)
}

// Owns tells whether a state belongs to the operator: whether it was made by one with the
// same Config.
func (a *Attention) Owns(st *State) bool { return st != nil && st.op != nil && st.op.print == a.print }

// NewPages returns a pool of pages for the operator's states, or an error that matches
// ErrConfig. A page holds tokens of one key head. SharedValues and LogWeights are not
// used.
func (a *Attention) NewPages(cfg attention.PagesConfig) (*attention.Pages, error) {
	if cfg.SharedValues || cfg.LogWeights {
		return nil, check.Errorf(ErrConfig, "kvcache: SharedValues or LogWeights of Pages, want neither")
	}
	p, err := a.op.NewPages(cfg)
	return p, named(err)
}

// Len returns how many tokens the state has seen, which may be more than it holds.
func (s *State) Len() int { return s.n }

// Config returns what the state was made with.
func (s *State) Config() StateConfig { return s.cfg }

// Held returns how many tokens a key head holds.
func (s *State) Held(head int) int { return s.heads[head].Held() }

// Positions appends to dst the positions of the tokens that a key head holds, oldest
// first.
func (s *State) Positions(dst []int64, head int) []int64 {
	for r := range s.heads[head].Held() {
		dst = append(dst, int64(s.position(head, r)))
	}
	return dst
}

// tokensRoom is how many tokens a key head has memory for now.
func (s *State) tokensRoom(head int) int {
	st := s.heads[head]
	return int(st.Bytes() / max(1, s.op.op.StateBytes(st.Config(), 1)))
}

// reserve returns a list with room for n more elements: for most in all, where it has to
// grow, as what it follows has room for.
func reserve[T any](list []T, n, most int) []T {
	if len(list)+n <= cap(list) {
		return list
	}
	return slices.Grow(list, max(n, most-len(list)))
}

// position is that of a row that a key head holds.
func (s *State) position(head, row int) int {
	if list := s.at[head]; list != nil {
		return list[row]
	}
	return s.n - s.heads[head].Held() + row
}

// rowsBefore is how many rows of a key head stand before a position.
func (s *State) rowsBefore(head, position int) int {
	if list := s.at[head]; list != nil {
		n, _ := slices.BinarySearch(list, position)
		return n
	}
	held := s.heads[head].Held()
	return min(max(position-(s.n-held), 0), held)
}

// Bytes returns the memory of keys, values and what policies know of them; pages count
// whole, also those that are shared.
func (s *State) Bytes() (n int64) {
	for g, st := range s.heads {
		n += st.Bytes() + 8*int64(cap(s.at[g]))
	}
	if s.index != nil {
		n += s.index.bytes()
	}
	n += s.marks.bytes()
	for v := range s.ring.All {
		if *v != nil {
			n += (*v).Bytes()
		}
	}
	return n
}

// Reset goes back to before the first token; pages go back to their pool, other memory
// stays.
func (s *State) Reset() {
	for g, st := range s.heads {
		st.Reset()
		s.at[g] = nil
	}
	s.n, s.floor = 0, 0
	s.Trace(s.trace != nil)
	s.forgetPolicies()
	s.dropVersions(-1)
}

// Clone returns a state that goes its own way from here: a fork. Pages are shared until
// one of the two writes to them; other memory is copied.
func (s *State) Clone() *State {
	c := &State{op: s.op, cfg: s.cfg, n: s.n, floor: s.floor, marks: s.marks.clone()}
	for _, st := range s.heads {
		c.heads = append(c.heads, st.Clone())
	}
	c.at = cloneLists(s.at)
	if s.index != nil {
		c.index = s.index.clone()
	}
	c.ring = s.ring.Clone(func(v *Mark) *Mark {
		if v == nil {
			return nil
		}
		return v.Clone()
	})
	return c
}

func cloneLists[T any](list [][]T) [][]T {
	c := make([][]T, len(list))
	for i, x := range list {
		c[i] = slices.Clone(x)
	}
	return c
}

// CopyFrom makes the state what another of the same operator is, versions for Truncate
// apart, which are forgotten; the other's StateConfig, but for Snapshots, becomes that of the
// state. It is an error that matches ErrState for a state of another operator.
func (s *State) CopyFrom(from *State) error {
	switch {
	case from == nil:
		return check.NilState("kvcache", "the state to copy")
	case s.op == nil || from.op == nil:
		return check.Unmade("kvcache")
	case from.op.print != s.op.print:
		return check.Errorf(ErrState, "kvcache: CopyFrom a state of an operator of another Config")
	case from == s:
		return nil
	}
	s.dropVersions(-1)
	for g, st := range s.heads {
		if err := st.CopyFrom(from.heads[g]); err != nil {
			return named(err)
		}
	}
	snapshots := s.cfg.Snapshots
	s.cfg = from.cfg
	s.cfg.Snapshots = snapshots
	s.n, s.floor, s.at = from.n, from.floor, cloneLists(from.at)
	s.marks, s.index = from.marks.clone(), nil
	if from.index != nil {
		s.index = from.index.clone()
	}
	return nil
}

// forget keeps of a key head's rows those of a list, ascending.
func (s *State) forget(head int, rows []int32) error {
	st := s.heads[head]
	if len(rows) == st.Held() {
		return nil
	}
	if s.at[head] == nil {
		list := make([]int, st.Held())
		for r := range list {
			list[r] = s.position(head, r)
		}
		s.at[head] = list
	}
	if err := st.Keep(rows); err != nil {
		return named(err)
	}
	list := s.at[head]
	for i, r := range rows {
		list[i] = list[r]
	}
	s.at[head] = list[:len(rows)]
	s.floor = s.n
	s.marks.keep(head, rows)
	if s.index != nil {
		s.index.keep(s, head)
	}
	return nil
}

// took notes that x tokens have been appended to all heads.
func (s *State) took(x int) {
	for g, list := range s.at {
		if list == nil {
			continue
		}
		for i := range x {
			list = append(list, s.n+i)
		}
		s.at[g] = list
	}
	s.n += x
}

// mostTokens bounds the tokens of a state.
const mostTokens = min(attention.MaxPosition, math.MaxInt/2)
