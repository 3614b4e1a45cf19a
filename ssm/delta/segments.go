package delta

import "github.com/subquad/subquad/internal/state"

// segments are those of a call, with the states that they go on from, and a segment is one
// of them.
type (
	segments = state.Segments[*State]
	segment  = state.Segment
)

// inside is what a state has in common with others that do not grow.
func inside(st *State) *state.Fixed {
	if st == nil {
		return nil
	}
	return &st.fixed
}
