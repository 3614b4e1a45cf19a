package attention

import (
	"slices"

	"github.com/subquad/subquad/internal/check"
)

// Keep forgets all tokens but those of rows, numbers among the tokens held, oldest
// first and counted from 0, ascending, none twice. What is kept keeps its position, and
// Len does not change: later queries attend to it as they would have, and to nothing
// else of the past. Truncate can take back what comes after.
//
// It moves the keys and values after the first gap, once, in the type they are stored
// in; pages that are emptied go back to their pool, and pages that other states share
// are copied before anything moves in them. Errors match ErrCall, or ErrFull where the
// pool has no page to copy to, and change nothing. A ring keeps what its Window and
// Keep say: for one it is an error.
func (s *State) Keep(rows []int32) error {
	if s.cfg.Window > 0 {
		return check.Errorf(ErrCall, "attention: Keep of a ring, which keeps what its Window and Keep say")
	}
	held := s.Held()
	if err := s.checkHeld("Keep", rows); err != nil {
		return err
	}
	if len(rows) == held {
		return nil
	}
	same := 0 // rows that stay where they are
	for same < len(rows) && int(rows[same]) == same {
		same++
	}
	if err := s.own(s.skip+same, s.skip+len(rows)); err != nil {
		return err
	}
	s.choose(rows)
	for to := same; to < len(rows); {
		n := 1
		for to+n < len(rows) && rows[to+n] == rows[to]+int32(n) {
			n++
		}
		s.shift(to, int(rows[to]), n)
		to += n
	}
	s.floor = s.n
	s.trim()
	return nil
}

// choose makes the list of positions that of rows of it.
func (s *State) choose(rows []int32) {
	if s.list == nil {
		s.list = make([]int64, 0, max(len(rows), 1))
		for _, r := range rows {
			s.list = append(s.list, int64(s.first)+int64(r))
		}
		return
	}
	for i, r := range rows {
		s.list[i] = s.list[r]
	}
	s.list = s.list[:len(rows)]
}

// shift moves n of the rows held to earlier rows.
func (s *State) shift(to, from, n int) {
	for n > 0 {
		src, row, have := s.rowPlace(from)
		dst, at, room := s.rowPlace(to)
		count := min(n, have, room)
		dst.moveRows(at, src, row, count)
		to, from, n = to+count, from+count, n-count
	}
}

// own makes the pages of some rows of memory the state's alone, or changes nothing.
func (s *State) own(from, to int) error {
	p := s.cfg.Pages
	if p == nil || from >= to {
		return nil
	}
	t := p.cfg.PageTokens
	var fresh []*block
	first, last := from/t, (to-1)/t
	for i := first; i <= last; i++ {
		if p.alone(s.blocks[i]) {
			continue
		}
		b, err := p.get()
		if err != nil {
			p.release(fresh)
			return err
		}
		fresh = append(fresh, b)
	}
	for i := first; i <= last && len(fresh) > 0; i++ {
		if p.alone(s.blocks[i]) {
			continue
		}
		fresh[0].moveRows(0, s.blocks[i], 0, t)
		p.release(s.blocks[i : i+1])
		s.blocks[i], fresh = fresh[0], fresh[1:]
	}
	return nil
}

// Forget lets go of the tokens before a position: a window that slides over a state
// which is no ring. Their memory is used again, their pages go back to the pool.
// Nothing else changes; Truncate can go back to before, and no further. Forgetting what
// is forgotten already, or was never there, does nothing. Of a ring it is an error that
// matches ErrCall, and so is a position after Len.
//
// It costs no more than to find the token, and now and then, when later tokens need
// the room, a move of what is held.
func (s *State) Forget(before int) error {
	switch {
	case s.cfg.Window > 0:
		return check.Errorf(ErrCall, "attention: Forget of a ring, which forgets by itself")
	case before > s.n:
		return check.Errorf(ErrCall, "attention: Forget the tokens before %d of a state with %d", before, s.n)
	}
	rows := s.rowsBefore(before)
	if rows == 0 {
		return nil
	}
	s.skip += rows
	if s.list != nil {
		s.list = slices.Delete(s.list, 0, rows)
	} else {
		s.first += rows
	}
	s.floor = max(s.floor, before)
	if p := s.cfg.Pages; p != nil {
		if whole := s.skip / p.cfg.PageTokens; whole > 0 {
			p.release(s.blocks[:whole])
			s.blocks = slices.Delete(s.blocks, 0, whole)
			s.skip -= whole * p.cfg.PageTokens
		}
	}
	if s.Held() == 0 {
		s.skip = 0
		s.trim()
	}
	return nil
}
