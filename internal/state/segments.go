package state

import (
	"context"

	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/pack"
	"github.com/subquad/subquad/internal/scratch"
)

// Segment is a stretch of rows of one sequence, and the state it goes on from, which the
// operator brings up to date.
type Segment struct {
	From, To int       // rows of the call
	Pos      int       // tokens of the sequence before row From
	Values   []float32 // the state, Kind.Size elements, or nil for one of zeros that nobody keeps
}

// Segments are those of a call, whose states are S, with a Fixed inside. They are reused from
// call to call.
type Segments[S comparable] struct {
	List []Segment

	layout pack.Layout[S] // List's rows, and a state for each or none
	inside func(S) *Fixed
	memory []float32 // copies of what the states were
	copied bool      // memory has copies, to go back to after an error
}

// BriefWork is how many multiply-adds a call may have that is not interrupted once it has
// begun: some milliseconds. Tests make it 0.
var BriefWork = int64(1 << 26)

// tokenWork is how many multiply-adds a token counts as at least, for what it costs besides.
const tokenWork = 1 << 17

// Brief tells whether a call of that many rows is done so soon that its context is looked at
// once, before it begins: single tokens always are.
func (k *Kind) Brief(rows int) bool {
	most := BriefWork
	if isa.Active() == isa.Generic {
		most >>= 4
	}
	return int64(rows) <= most/max(k.Work, tokenWork) || rows <= 1 && most > 0
}

// Begin checks the batch of a call and lays out its segments; inside returns the Fixed of a
// state, nil of nil. It returns the context to run with. Unless it returns an error, End must
// follow.
//
// The states are brought up to date where they are. A call that can fail on its way, because
// it takes long and its context can end or because it is said to, has copies made to go back
// to.
func (s *Segments[S]) Begin(ctx context.Context, k *Kind, batch pack.Batch[S], inside func(S) *Fixed, fails bool) (context.Context, error) {
	s.inside = inside
	if err := s.layout.Lay(k.Package, batch, func(name string, st S) error { return k.Accept(name, inside(st)) }); err != nil {
		return nil, err
	}
	err := ctx.Err()
	for i, st := range s.layout.States {
		if err == nil {
			err = inside(st).Room(s.layout.Segments[i].To - s.layout.Segments[i].From)
		}
	}
	if err != nil {
		s.layout.Clear()
		return nil, err
	}
	s.copied = false
	if len(s.layout.States) > 0 {
		switch {
		case fails:
			s.copied = true
		case ctx.Done() == nil:
		case k.Brief(batch.Rows):
			ctx = context.Background()
		default:
			s.copied = true
		}
	}
	s.place(k)
	return ctx, nil
}

// place gives every segment the values of its state, if there is one.
func (s *Segments[S]) place(k *Kind) {
	s.List = s.List[:0]
	if s.copied {
		s.memory = scratch.Floats(s.memory, len(s.layout.Segments)*k.Size)
	}
	for i, rows := range s.layout.Segments {
		g := Segment{From: rows.From, To: rows.To}
		if len(s.layout.States) > 0 {
			st := s.inside(s.layout.States[i])
			g.Values, g.Pos = st.Values, st.N
			if s.copied {
				copy(s.memory[i*k.Size:][:k.Size], st.Values)
			}
		}
		s.List = append(s.List, g)
	}
}

// States are those of List, or none.
func (s *Segments[S]) States() []S { return s.layout.States }

// End notes in the states how many tokens they have seen or, where the call has failed, makes
// them what they were. It forgets them, and returns err.
func (s *Segments[S]) End(err error) error {
	for i, of := range s.layout.States {
		st := s.inside(of)
		size := len(st.Values)
		switch {
		case err == nil:
			st.Advance(s.List[i].To - s.List[i].From)
		case s.copied:
			copy(st.Values, s.memory[i*size:][:size])
		case s.List[i].From < s.List[i].To:
			st.spoiled = true
		}
	}
	s.layout.Clear()
	clear(s.List)
	s.List = s.List[:0]
	return err
}
