package attention

import "errors"

var (
	// ErrShape is matched by errors about the shape of a matrix or slice.
	ErrShape = errors.New("attention: wrong shape")
	// ErrConfig is matched by errors about a Config.
	ErrConfig = errors.New("attention: wrong configuration")
	// ErrCall is matched by errors about the options of a call.
	ErrCall = errors.New("attention: wrong options of a call")
	// ErrState is matched by errors about a State that is another operator's, or
	// cannot be read.
	ErrState = errors.New("attention: wrong state")
	// ErrFull is matched by errors about a State or a pool without room.
	ErrFull = errors.New("attention: no room")
)
