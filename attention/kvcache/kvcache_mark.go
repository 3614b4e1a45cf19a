package kvcache

import (
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
)

// Mark is a point that a state can come back to: see State.Save.
type Mark struct {
	op    *Attention
	heads []*attention.State // clones, where there is an Evictor
	at    [][]int
	n     int
	index index
	marks memory
	floor int
}

// Bytes returns the memory of the mark.
func (v *Mark) Bytes() (n int64) {
	for _, st := range v.heads {
		n += st.Bytes()
	}
	if v.index != nil {
		n += v.index.bytes()
	}
	return n + v.marks.bytes()
}

// Clone returns a copy of the mark.
func (v *Mark) Clone() *Mark {
	c := &Mark{op: v.op, n: v.n, floor: v.floor, at: cloneLists(v.at), marks: v.marks.clone()}
	for _, st := range v.heads {
		c.heads = append(c.heads, st.Clone())
	}
	if v.index != nil {
		c.index = v.index.clone()
	}
	return c
}

// Truncate takes back the last tokens, so that n are left. It is an error that matches
// ErrState, and changes nothing, where tokens have been forgotten since, or a policy's
// scores have taken up what came after, unless StateConfig.Snapshots has kept the
// version of n tokens; 0 and Len are always possible.
func (s *State) Truncate(n int) error {
	switch {
	case n < 0 || n > s.n:
		return check.Errorf(ErrState, "kvcache: Truncate to %d tokens of a state with %d", n, s.n)
	case n == s.n:
		return nil
	case n == 0:
		s.Reset()
		return nil
	}
	if v := s.ring.Back(n); v != nil {
		return s.Restore(*v)
	}
	if n < s.floor {
		return check.Errorf(ErrState, "kvcache: Truncate to %d tokens of a state that has forgotten some of %d, want 0 or at least %d, or Snapshots", n, s.n, s.floor)
	}
	if s.index != nil && !s.index.truncate(s, n, true) || !s.marks.canTruncate(n) {
		return check.Errorf(ErrState, "kvcache: Truncate to %d of %d tokens, whose running scores cannot go back; see Snapshots", n, s.n)
	}
	for _, st := range s.heads {
		if err := st.Truncate(n); err != nil {
			return named(err) // of the first, if any: all heads have the same floor
		}
	}
	s.shorten(n)
	s.dropVersions(n)
	return nil
}

// CanTruncate tells whether Truncate can go back to n tokens.
func (s *State) CanTruncate(n int) bool {
	if n < 0 || n > s.n {
		return false
	}
	if n == 0 || n == s.n {
		return true
	}
	for v := range s.ring.All {
		if *v != nil && (*v).op != nil && (*v).n == n {
			return true
		}
	}
	return n >= s.floor && (s.index == nil || s.index.truncate(s, n, true)) && s.marks.canTruncate(n)
}

// shorten notes that heads have been taken back to n tokens.
func (s *State) shorten(n int) {
	for g, list := range s.at {
		if list != nil {
			s.at[g] = list[:s.rowsBefore(g, n)]
		}
	}
	s.n = n
	if s.index != nil {
		s.index.truncate(s, n, false)
	}
	s.marks.truncate(s, n)
}

// Restore makes the state what it was when Save made the mark, which must be the state's
// own, made no later than the tokens that it has now; otherwise it is an error that
// matches ErrState. The mark stays.
func (s *State) Restore(v *Mark) error {
	switch {
	case v == nil || v.op != s.op:
		return check.Errorf(ErrState, "kvcache: a mark of no state of this operator")
	case v.n > s.n || v.heads == nil && v.floor != s.floor:
		return check.Errorf(ErrState, "kvcache: a mark of %d tokens for a state of %d, which is another's or has been restored to before", v.n, s.n)
	}
	for g, st := range s.heads {
		if v.heads != nil {
			if s.cfg.Pages != nil {
				st.Reset() // its pages go back
			}
			s.heads[g] = v.heads[g].Clone()
		} else if err := st.Truncate(v.n); err != nil {
			return named(err)
		}
	}
	c := v.Clone()
	s.release(c)
	s.at, s.n, s.index, s.marks, s.floor = c.at, c.n, c.index, c.marks, c.floor
	return nil
}

// Save notes in a mark what the state is: the policies' running scores and cached choices,
// and with an Evictor a copy of what is held, which shares its pages. A mark is a zero
// Mark or one that Save has made, and costs no more than that.
func (s *State) Save(v *Mark) {
	s.release(v)
	*v = Mark{op: s.op, n: s.n, floor: s.floor, at: cloneLists(s.at), marks: s.marks.clone()}
	if s.index != nil {
		v.index = s.index.clone()
	}
	if s.op.cfg.Evict != nil {
		for _, st := range s.heads {
			v.heads = append(v.heads, st.Clone())
		}
	}
}

// keepVersion notes what the state is, for Truncate.
func (s *State) keepVersion() {
	if to := s.ring.Next(s.n); to != nil {
		if *to == nil {
			*to = new(Mark)
		}
		s.Save(*to)
	}
}

// release gives back the pages of a mark.
func (s *State) release(v *Mark) {
	if s.cfg.Pages != nil {
		for _, st := range v.heads {
			st.Reset()
		}
	}
	v.heads = nil
}

// dropVersions forgets the versions of more than n tokens, all for -1.
func (s *State) dropVersions(n int) {
	for v := range s.ring.All {
		if *v != nil && (n < 0 || (*v).n > n) {
			s.release(*v)
			**v = Mark{}
		}
	}
	s.ring.Forget(n)
}
