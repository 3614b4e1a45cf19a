package ssm

import (
	"context"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/scratch"
)

// segment is a stretch of rows of one sequence, and the state it goes on from,
// which the operator brings up to date.
type segment struct {
	from, to int
	pos      int // tokens before from
	values   []float32
	filter   DeltaFilter // of the state
}

// sequences are the segments of a call.
type sequences struct {
	list   []segment
	states []*State // one for each segment, or nil
	memory []float32
	copied bool
}

// packing is what a call says of its sequences.
type packing struct {
	state   *State
	offsets []int
	states  []*State
	each    bool // a row for each of states
}

// begin checks p, for rows tokens, and lays out the segments. Where the call may
// stop halfway, it works on copies of the states until commit. end must follow.
func (s *sequences) begin(k *kind, rows int, p packing, mayStop bool) error {
	s.list, s.states, s.copied = s.list[:0], s.states[:0], mayStop
	if err := s.layOut(k, rows, p); err != nil {
		clear(s.states)
		return err
	}
	s.place(k, mayStop)
	return nil
}

func (s *sequences) layOut(k *kind, rows int, p packing) error {
	switch {
	case p.each:
		if len(p.states) != rows {
			return check.Errorf(ErrShape, "ssm: %d states for %d rows", len(p.states), rows)
		}
		for t := range rows {
			s.list = append(s.list, segment{from: t, to: t + 1})
		}
		s.states = append(s.states, p.states...)
	case p.offsets == nil:
		if p.states != nil {
			return check.Errorf(ErrShape, "ssm: States is given without Offsets")
		}
		s.list = append(s.list, segment{from: 0, to: rows})
		if p.state != nil {
			s.states = append(s.states, p.state)
		}
	default:
		if err := s.packed(rows, p); err != nil {
			return err
		}
	}
	for i, st := range s.states {
		if err := k.check("a state", st); err != nil {
			return err
		}
		for _, other := range s.states[:i] {
			if other == st {
				return check.Errorf(ErrShape, "ssm: one state stands for two sequences")
			}
		}
	}
	return nil
}

func (s *sequences) packed(rows int, p packing) error {
	n := len(p.offsets) - 1
	if n < 0 || p.offsets[0] != 0 || p.offsets[n] != rows {
		return check.Errorf(ErrShape, "ssm: Offsets is %v, want a row for each sequence's begin and at last the number of rows, %d", p.offsets, rows)
	}
	for i, from := range p.offsets[:n] {
		if p.offsets[i+1] < from {
			return check.Errorf(ErrShape, "ssm: Offsets[%d] is %d, less than the one before it", i+1, p.offsets[i+1])
		}
		s.list = append(s.list, segment{from: from, to: p.offsets[i+1]})
	}
	if p.state != nil {
		return check.Errorf(ErrShape, "ssm: State is given with Offsets; want States")
	}
	if p.states != nil && len(p.states) != n {
		return check.Errorf(ErrShape, "ssm: States has %d elements, want one for each sequence, %d", len(p.states), n)
	}
	s.states = append(s.states, p.states...)
	return nil
}

// place gives every segment its values.
func (s *sequences) place(k *kind, mayStop bool) {
	if len(s.states) == 0 || mayStop {
		s.memory = scratch.Floats(s.memory, len(s.list)*k.size)
	}
	for i := range s.list {
		g := &s.list[i]
		own := func() []float32 { return s.memory[i*k.size:][:k.size] }
		if len(s.states) > 0 {
			g.filter = s.states[i].filter
		}
		switch {
		case len(s.states) == 0:
			g.values = own()
			clear(g.values)
		case mayStop:
			g.values = own()
			copy(g.values, s.states[i].values)
			g.pos = s.states[i].n
		default:
			g.values, g.pos = s.states[i].values, s.states[i].n
		}
	}
}

// end brings the states up to date, unless the call has failed, and forgets them.
func (s *sequences) end(err error) {
	for i, st := range s.states {
		if err == nil {
			if g := s.list[i]; g.from < g.to {
				if s.copied {
					copy(st.values, g.values)
				}
				st.advance(g.to - g.from)
			}
		}
		s.states[i] = nil
	}
	s.states = s.states[:0]
	for i := range s.list {
		s.list[i].values, s.list[i].filter = nil, nil
	}
}

// mayStop tells whether a call can end before its work is done.
func mayStop(ctx context.Context, filter DeltaFilter) bool { return ctx.Done() != nil || filter != nil }
