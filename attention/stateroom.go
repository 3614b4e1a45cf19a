package attention

import (
	"context"
	"math"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/rope"
)

// place returns where a token stands, and for how many the block goes on.
func (s *State) place(pos int) (b *block, row, room int) {
	switch p := s.cfg.Pages; {
	case p != nil:
		t := p.cfg.PageTokens
		return s.blocks[pos/t], pos % t, t - pos%t
	case s.cfg.Window > 0 && pos < s.cfg.Keep:
		return s.blocks[0], pos, s.cfg.Keep - pos
	case s.cfg.Window > 0:
		row = (pos - s.cfg.Keep) % s.ring()
		return s.blocks[0], s.cfg.Keep + row, s.ring() - row
	}
	return s.blocks[0], pos, s.blocks[0].tokens() - pos
}

// reserve makes room for n more tokens in memory that is the state's own.
func (s *State) reserve(n int) error {
	switch p := s.cfg.Pages; {
	case n == 0:
	case p != nil:
		t := p.cfg.PageTokens
		if last := s.n / t; s.n%t > 0 && !p.alone(s.blocks[last]) {
			b, err := p.get()
			if err != nil {
				return err
			}
			b.move(0, s.blocks[last], 0, s.n%t)
			p.release(s.blocks[last : last+1])
			s.blocks[last] = b
		}
		for len(s.blocks)*t < s.n+n {
			b, err := p.get()
			if err != nil {
				s.trim()
				return err
			}
			s.blocks = append(s.blocks, b)
		}
	default:
		need, most := s.n+n, math.MaxInt
		if s.cfg.Window > 0 {
			most = s.ringTokens()
			need = min(need, most)
		} else if s.cfg.MaxTokens > 0 {
			most = s.cfg.MaxTokens
		}
		room := max(need, 64)
		if len(s.blocks) > 0 {
			if s.blocks[0].tokens() >= need {
				return nil
			}
			room = max(room, 2*s.blocks[0].tokens())
		}
		room = min(room, most)
		if s.op.checkRoom(&s.cfg, room) != nil {
			return check.Errorf(ErrFull, "attention: %d tokens after %d are more than memory can hold", n, s.n)
		}
		b := s.op.newBlock(&s.cfg, room)
		if s.n > 0 {
			b.move(0, s.blocks[0], 0, s.n)
		}
		s.blocks = append(s.blocks[:0], b)
	}
	return nil
}

// turn asks the schedule for the rotation of a step after which there are n
// tokens, and brings cached keys over to it where they are kept rotated.
func (s *State) turn(ctx context.Context, n int) error {
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
		at := rope.Positions{Start: int64(x.pos)}
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
