package merge

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// StreamCall is a call of Stream. Dst, X and Metric are needed.
type StreamCall struct {
	// X [tokens, Dim] are the next tokens, Metric [tokens, MetricDim] what they are
	// compared by.
	X, Metric blas32.General
	// Dst takes the rows that come out, and must have Room(tokens, State) of them.
	// It shares no element with the others.
	Dst blas32.General
	// Sizes [tokens] are the sizes of the tokens, nil where each is 1. Total, if not nil,
	// takes the size of each row of Dst, and Kept the token whose place it takes, counted
	// from the first of the stream; both are as long as Dst at least.
	Sizes, Total []float32
	Kept         []int64
	// State is what the stream has seen, and is brought up to date; nil is nothing.
	State *State
	// End says that no token follows: one that waits for its second comes out.
	End bool
}

// checkStream reports what is wrong with a call.
func (op *Stream) checkStream(c *StreamCall) error {
	n := c.X.Rows
	if c.State != nil {
		if err := op.checkState(c.State); err != nil {
			return err
		}
	}
	if err := check.Matrix(ErrShape, "merge", "x", c.X, -1, op.cfg.Dim, "Dim"); err != nil {
		return err
	}
	if err := check.Matrix(ErrShape, "merge", "the metric", c.Metric, n, op.cfg.MetricDim, "MetricDim"); err != nil {
		return err
	}
	if err := check.Matrix(ErrShape, "merge", "dst", c.Dst, -1, op.cfg.Dim, "Dim"); err != nil {
		return err
	}
	if c.State != nil && c.State.n > maxLen-int64(n) {
		return check.Errorf(ErrFull, "merge: the state has seen %d tokens, want at most %d", c.State.n, int64(maxLen))
	}
	room := op.Room(n, c.State)
	switch {
	case n > maxTokens:
		return check.Errorf(ErrShape, "merge: %d tokens, want at most %d", n, maxTokens)
	case c.Dst.Rows < room:
		return check.Errorf(ErrShape, "merge: dst has %d rows, want Room = %d", c.Dst.Rows, room)
	case c.Sizes != nil && len(c.Sizes) != n:
		return check.Errorf(ErrShape, "merge: Sizes has %d elements, want the rows of x = %d", len(c.Sizes), n)
	case c.Total != nil && len(c.Total) < room:
		return check.Errorf(ErrShape, "merge: Total has %d elements, want Room = %d", len(c.Total), room)
	case c.Kept != nil && len(c.Kept) < room:
		return check.Errorf(ErrShape, "merge: Kept has %d elements, want Room = %d", len(c.Kept), room)
	}
	for _, in := range [...]blas32.General{c.X, c.Metric, mat.Vector(c.Sizes)} {
		if mat.Overlap(c.Dst, in) || mat.Overlap(mat.Vector(c.Total), in) {
			return check.Errorf(ErrShape, "merge: dst or Total shares elements with an input")
		}
	}
	if mat.Overlap(c.Dst, mat.Vector(c.Total)) {
		return check.Errorf(ErrShape, "merge: dst shares elements with Total")
	}
	return check.Positive(ErrCall, "merge", "Sizes", c.Sizes)
}
