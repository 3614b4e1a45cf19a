package ssm

import "github.com/subquad/subquad"

var (
	// ErrConfig is matched by errors about a Config or weights.
	ErrConfig = subquad.ErrConfig
	// ErrShape is matched by errors about the shape of a matrix or slice, and about
	// states that belong to another operator.
	ErrShape = subquad.ErrShape
	// ErrCall is matched by errors about the options of a call: nil, that contradict each
	// other, or that an operator cannot honour.
	ErrCall = subquad.ErrCall
	// ErrState is matched by errors about a stored state that cannot be read, and
	// about a snapshot that is not there.
	ErrState = subquad.ErrState
)
