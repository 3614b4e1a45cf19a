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

// togetherFloats is how many float32 of states are held at a time, roughly, where a call
// gives none: not those of all of many short sequences. A variable for tests.
var togetherFloats = 1 << 22

// segments are those of a call. They are reused from call to call.
type segments struct {
	list   []segment // those that are done now: all where the call gives states
	states state.Segments[*State]
	memory []float32 // list's states, where the call gives none
	size   int       // of a state
	next   int       // the first that is not yet in list
}

// begin checks the batch of a call, which may have a filter, and lays out its segments. It
// returns the context to run with. Unless it returns an error, more and end must follow. A
// call that can fail on its way, also because its filter may panic, leaves the states as they were.
func (s *segments) begin(ctx context.Context, k *kind, batch pack.Batch[*State], filter DeltaFilter) (context.Context, error) {
	ctx, err := s.states.Begin(ctx, &k.Kind, batch, inside, filter != nil)
	if err != nil {
		return nil, err
	}
	s.size, s.next = k.Size, 0
	return ctx, nil
}

// more lists the next segments to be done, in order, and reports whether there are any.
func (s *segments) more() bool {
	states, all := s.states.States(), s.states.List[s.next:]
	s.list = s.list[:0]
	if len(states) == 0 {
		all = all[:min(max(togetherFloats/max(s.size, 1), 1), len(all))]
		s.memory = scratch.Floats(s.memory, len(all)*s.size)
		clear(s.memory)
	}
	for i, g := range all {
		one := segment{Segment: g}
		if len(states) == 0 {
			one.Values = s.memory[i*s.size:][:s.size]
		} else {
			one.filter = states[i].filter
		}
		s.list = append(s.list, one)
	}
	s.next += len(all)
	return len(all) > 0
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
