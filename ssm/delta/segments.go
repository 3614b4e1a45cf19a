package delta

import (
	"context"

	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/pack"
	"github.com/subquad/subquad/internal/scratch"
)

// segment is a stretch of rows of one sequence, and the state it goes on from, which
// the operator brings up to date.
type segment struct {
	from, to int       // rows of the call
	pos      int       // tokens of the sequence before row from
	values   []float32 // the state, kind.size elements, or nil for one of zeros that nobody keeps
}

// segments are those of a call. They are reused from call to call.
type segments struct {
	list   []segment
	layout pack.Layout[*State] // list's rows, and a state for each or none
	memory []float32           // copies of what the states were
	copied bool                // memory has copies, to go back to after an error
}

// briefWork is how many multiply-adds a call may have that is not interrupted once it
// has begun: some milliseconds. Tests make it 0.
var briefWork = int64(1 << 28)

// brief tells whether a call of that many rows is done so soon that its context is
// looked at once, before it begins: single tokens always are.
func (k *kind) brief(rows int) bool {
	most := briefWork
	if isa.Active() == isa.Generic {
		most >>= 4
	}
	return int64(rows) <= most/max(k.work, 1) || rows <= 1 && most > 0
}

// begin checks the batch of a call and lays out its segments. It returns the context to
// run with. Unless it returns an error, end must follow.
//
// The states are brought up to date where they are. A call that can fail on its way,
// because it takes long and its context can end, has copies made to go back to.
func (s *segments) begin(ctx context.Context, k *kind, batch pack.Batch[*State]) (context.Context, error) {
	if err := s.layout.Lay("delta", batch, k.accept); err != nil {
		return nil, err
	}
	err := ctx.Err()
	for i, st := range s.layout.States {
		if err == nil {
			err = st.room(s.layout.Segments[i].To - s.layout.Segments[i].From)
		}
	}
	if err != nil {
		s.layout.Clear()
		return nil, err
	}
	s.copied = false
	if len(s.layout.States) > 0 && ctx.Done() != nil {
		if k.brief(batch.Rows) {
			ctx = context.Background()
		} else {
			s.copied = true
		}
	}
	s.place(k)
	return ctx, nil
}

// place gives every segment the values of its state, if there is one.
func (s *segments) place(k *kind) {
	s.list = s.list[:0]
	if s.copied {
		s.memory = scratch.Floats(s.memory, len(s.layout.Segments)*k.size)
	}
	for i, rows := range s.layout.Segments {
		g := segment{from: rows.From, to: rows.To}
		if len(s.layout.States) > 0 {
			st := s.layout.States[i]
			g.values, g.pos = st.values, st.n
			if s.copied {
				copy(s.memory[i*k.size:][:k.size], st.values)
			}
		}
		s.list = append(s.list, g)
	}
}

// end notes in the states how many tokens they have seen or, where the call has failed,
// makes them what they were. It forgets them, and returns err.
func (s *segments) end(err error) error {
	for i, st := range s.layout.States {
		size := len(st.values)
		switch {
		case err == nil:
			st.advance(s.list[i].to - s.list[i].from)
		case s.copied:
			copy(st.values, s.memory[i*size:][:size])
		}
	}
	s.layout.Clear()
	clear(s.list)
	s.list = s.list[:0]
	return err
}

// eachRow is the States of StepBatch: a row for each, none for none.
func eachRow(states []*State) []*State {
	if states == nil {
		return []*State{}
	}
	return states
}
