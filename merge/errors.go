package merge

import "github.com/subquad/subquad"

var (
	// ErrShape is matched by errors about the shape of a matrix or slice, and about a
	// plan that is applied to another number of tokens than it was made for.
	ErrShape = subquad.ErrShape
	// ErrConfig is matched by errors about a Config or weights.
	ErrConfig = subquad.ErrConfig
	// ErrCall is matched by errors about the options of a call: more tokens to merge
	// away than can be, a size that is not positive.
	ErrCall = subquad.ErrCall
	// ErrState is matched by errors about a State that is another operator's, or
	// cannot be read.
	ErrState = subquad.ErrState
	// ErrFull is matched by an error about a State that has seen more tokens than can be
	// counted.
	ErrFull = subquad.ErrFull
)
