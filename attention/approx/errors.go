package approx

import "errors"

var (
	// ErrShape is matched by errors about the shape of a matrix or slice.
	ErrShape = errors.New("approx: wrong shape")
	// ErrConfig is matched by errors about a Config.
	ErrConfig = errors.New("approx: wrong configuration")
	// ErrCall is matched by errors about the options of a call.
	ErrCall = errors.New("approx: wrong options of a call")
	// ErrState is matched by errors about a State that is another operator's, or
	// cannot be read.
	ErrState = errors.New("approx: wrong state")
)
