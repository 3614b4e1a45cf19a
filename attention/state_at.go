package attention

import "github.com/subquad/subquad/internal/check"

// Config returns how the state keeps keys and values. Table is not among it: see
// State.Table.
func (s *State) Config() StateConfig { return s.cfg }

// Segment returns the stretch that begins with the token at a position, or false where
// the state does not hold that token. It costs no memory, unlike Segments.
func (s *State) Segment(position int) (Segment, bool) {
	if position < 0 || position >= s.n {
		return Segment{}, false
	}
	at, keys := Segment{}, &s.op.cfg
	if s.cfg.Window > 0 {
		if position >= s.cfg.Keep && position < s.high-s.ring() {
			return at, false
		}
		b, row, room := s.place(position)
		return Segment{position, min(room, s.n-position), row, b, keys.KVHeads, keys.ValueDim}, true
	}
	first := s.rowsBefore(position)
	if first >= s.Held() || s.list == nil && position < s.first || s.list != nil && int(s.list[first]) != position {
		return at, false
	}
	b, row, room := s.rowPlace(first)
	n := min(room, s.Held()-first)
	if s.list != nil {
		follow := 1
		for follow < n && s.list[first+follow] == int64(position+follow) {
			follow++
		}
		n = follow
	}
	return Segment{position, n, row, b, keys.KVHeads, keys.ValueDim}, true
}

// Holds tells whether the state holds all tokens of positions from ... to.
func (s *State) Holds(from, to int) bool {
	for from < to {
		g, ok := s.Segment(from)
		if !ok {
			return false
		}
		from += g.Tokens
	}
	return true
}

// Skip lets the next n tokens of the sequence pass, which the state is not to hold: the
// token after them is the next. It is what storing n tokens and forgetting them would
// leave, and as after a Forget, Truncate cannot go back to before. Errors match ErrCall:
// for a ring, a negative n, or more than 2^60 tokens in all.
func (s *State) Skip(n int) error {
	switch {
	case s.cfg.Window > 0:
		return check.Errorf(ErrCall, "attention: Skip in a ring")
	case n < 0 || int64(n) > mostTokens-int64(s.n):
		return check.Errorf(ErrCall, "attention: Skip %d tokens after %d, want at least 0 and no more than 2^60 in all", n, s.n)
	case n == 0:
		return nil
	}
	if s.list == nil && s.Held() > 0 {
		s.list = s.Positions(make([]int64, 0, s.Held()))
	}
	s.n += n
	s.reached = max(s.reached, s.n)
	s.floor = s.n
	if len(s.list) == 0 {
		s.first, s.list = s.n, nil
	}
	return nil
}
