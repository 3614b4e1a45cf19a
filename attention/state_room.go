package attention

import (
	"context"
	"math"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/rope"
)

// place returns where a token stands, by its position, and for how many the block
// goes on.
func (s *State) place(pos int) (b *block, row, room int) {
	switch {
	case s.cfg.Window > 0 && pos < s.cfg.Keep:
		return s.blocks[0], pos, s.cfg.Keep - pos
	case s.cfg.Window > 0:
		row = (pos - s.cfg.Keep) % s.ring()
		return s.blocks[0], s.cfg.Keep + row, s.ring() - row
	}
	return s.rowPlace(s.rowsBefore(pos))
}

// rowPlace is place by the number of a row among those held.
func (s *State) rowPlace(row int) (b *block, at, room int) {
	at = s.skip + row
	if p := s.cfg.Pages; p != nil {
		t := p.cfg.PageTokens
		return s.blocks[at/t], at % t, t - at%t
	}
	return s.blocks[0], at, s.blocks[0].tokens() - at
}

// makeRoom makes room for n more tokens in memory that is the state's own.
func (s *State) makeRoom(n int) error {
	switch {
	case n == 0:
		return nil
	case s.cfg.Pages != nil:
		return s.reservePages(n)
	}
	need, most := s.rowsUsed()+n, math.MaxInt
	if s.cfg.Window > 0 {
		need, most = s.n+n, s.ringTokens()
		need = min(need, most)
	} else if s.cfg.MaxTokens > 0 {
		most = s.cfg.MaxTokens
	}
	room, tokens := max(need, 64), 0
	if len(s.blocks) > 0 {
		tokens = s.blocks[0].tokens()
		if tokens >= need {
			return nil
		}
		if held := need - s.skip; s.skip > 0 && tokens >= held && (s.skip >= held/8 || tokens == most) {
			s.blocks[0].moveRows(0, s.blocks[0], s.skip, held-n)
			s.skip = 0
			return nil
		}
		if room = max(need, 64, 2*tokens); s.skip > 0 { // much of it comes and goes
			room = max(need-s.skip+(need-s.skip)/4, 64)
		}
	}
	room = min(room, most)
	if s.op.checkRoom(&s.cfg, room) != nil {
		return check.Errorf(ErrFull, "attention: %d tokens after %d are more than memory can hold", n, s.n)
	}
	b := s.op.newBlock(&s.cfg, room)
	if tokens > 0 {
		b.moveRows(0, s.blocks[0], s.skip, min(s.rowsUsed(), tokens)-s.skip)
	}
	s.blocks = append(s.blocks[:0], b)
	s.skip = 0
	return nil
}

// reservePages is reserve for a state of pages.
func (s *State) reservePages(n int) error {
	p := s.cfg.Pages
	t, used := p.cfg.PageTokens, s.rowsUsed()
	if last := used / t; used%t > 0 && !p.alone(s.blocks[last]) {
		b, err := p.get()
		if err != nil {
			return err
		}
		b.moveRows(0, s.blocks[last], 0, used%t)
		p.release(s.blocks[last : last+1])
		s.blocks[last] = b
	}
	for len(s.blocks)*t < used+n {
		b, err := p.get()
		if err != nil {
			s.trim()
			return err
		}
		s.blocks = append(s.blocks, b)
	}
	return nil
}

// took makes the next n tokens, which have been stored, the state's.
func (s *State) took(n int) {
	if s.list != nil {
		for i := range n {
			s.list = append(s.list, int64(s.n+i))
		}
	}
	s.n += n
}

// turnTo asks the schedule for the rotation of a step after which there are n
// tokens, and brings cached keys over to it where they are kept rotated.
func (s *State) turnTo(ctx context.Context, n int) error {
	if s.schedule == nil {
		return nil
	}
	s.before = *s.schedule
	r, from, err := s.schedule.Step(int64(n))
	if err != nil {
		return err
	}
	s.rotation = r
	if from == nil {
		return nil
	}
	for _, x := range s.spans(nil, 0, s.n) {
		k, _, _ := Segment{Tokens: x.n, row: x.row, b: x.b}.Float32()
		at := rope.Positions{Start: int64(x.pos), At: x.list}
		// Not to be interrupted half way.
		if err := r.Run(context.WithoutCancel(ctx), &rope.Call{X: k, Positions: at, From: from, FromPositions: at}); err != nil {
			return err
		}
	}
	return nil
}

// turnBack undoes turn for a step that failed; keys that were brought over stay so.
func (s *State) turnBack() {
	if s.schedule != nil && s.cfg.Policy != rope.Rerotate {
		*s.schedule = s.before
	}
}
