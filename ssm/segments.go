package ssm

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/pack"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
)

// segment is a stretch of rows of one sequence, the state it goes on from, which the
// operator brings up to date, and that state's filter; nil for none.
type segment struct {
	state.Segment
	filter DeltaFilter
}

// segments are those of a call. They are reused from call to call.
type segments struct {
	list   []segment
	states state.Segments[*State]
	memory []float32 // list's states, where the call gives none
}

// begin checks the batch of a call, which may have a filter, and lays out its segments. It
// returns the context to run with. Unless it returns an error, end must follow. A call that
// can fail on its way, also because its filter may panic, leaves the states as they were.
func (s *segments) begin(ctx context.Context, k *kind, batch pack.Batch[*State], filter DeltaFilter) (context.Context, error) {
	ctx, err := s.states.Begin(ctx, &k.Kind, batch, inside, filter != nil)
	if err != nil {
		return nil, err
	}
	states := s.states.States()
	if len(states) == 0 {
		s.memory = scratch.Floats(s.memory, len(s.states.List)*k.Size)
		clear(s.memory)
	}
	for i, g := range s.states.List {
		one := segment{Segment: g}
		if len(states) == 0 {
			one.Values = s.memory[i*k.Size:][:k.Size]
		} else {
			one.filter = states[i].filter
		}
		s.list = append(s.list, one)
	}
	return ctx, nil
}

// end notes in the states how many tokens they have seen or, where the call has failed,
// makes them what they were. It forgets them, and returns err.
func (s *segments) end(err error) error {
	clear(s.list)
	s.list = s.list[:0]
	return s.states.End(err)
}

// batchOf is the batch of a call over the rows of x.
func batchOf(x blas32.General, st *State, offsets []int, states []*State) pack.Batch[*State] {
	return pack.Batch[*State]{Rows: x.Rows, Offsets: offsets, State: st, States: states}
}
