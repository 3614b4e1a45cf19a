package merge

import "errors"

var (
	// ErrShape is matched by errors about the shape of a matrix or slice, and about a
	// plan that is applied to another number of tokens than it was made for.
	ErrShape = errors.New("merge: wrong shape")
	// ErrConfig is matched by errors about a Config or weights.
	ErrConfig = errors.New("merge: wrong configuration")
	// ErrCall is matched by errors about the options of a call: more tokens to merge
	// away than can be, a size that is not positive.
	ErrCall = errors.New("merge: wrong options of a call")
	// ErrState is matched by errors about a State that is another operator's, or
	// cannot be read.
	ErrState = errors.New("merge: wrong state")
)
