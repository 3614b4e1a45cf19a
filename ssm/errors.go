package ssm

import "github.com/subquad/subquad"

// The errors of this package match one of these. They are the root package's.
var (
	// ErrConfig is matched by errors about a Config or weights.
	ErrConfig = subquad.ErrConfig
	// ErrShape is matched by errors about the shape of a matrix, and about outputs that
	// share elements with inputs.
	ErrShape = subquad.ErrShape
	// ErrCall is matched by errors about the options of a call: missing, that contradict
	// each other, or that an operator cannot honour.
	ErrCall = subquad.ErrCall
	// ErrState is matched by errors about a state: nil, of another operator, given twice,
	// truncated to where it has no snapshot, or stored in a way that cannot be read.
	ErrState = subquad.ErrState
	// ErrFull is matched by errors about a state that would have seen more tokens than it
	// can count.
	ErrFull = subquad.ErrFull
)
