package approx

import "github.com/subquad/subquad"

var (
	// ErrShape is matched by errors about the shape of a matrix or slice.
	ErrShape = subquad.ErrShape
	// ErrConfig is matched by errors about a Config.
	ErrConfig = subquad.ErrConfig
	// ErrCall is matched by errors about the options of a call.
	ErrCall = subquad.ErrCall
	// ErrState is matched by errors about a State that is another operator's, or
	// cannot be read.
	ErrState = subquad.ErrState
	// ErrFull is matched by an error about a State that has seen more tokens than can be
	// counted.
	ErrFull = subquad.ErrFull
)
