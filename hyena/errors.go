package hyena

import "errors"

var (
	// ErrShape is matched by errors about the shape of a matrix or slice.
	ErrShape = errors.New("hyena: wrong shape")
	// ErrConfig is matched by errors about a Config or weights.
	ErrConfig = errors.New("hyena: wrong configuration")
	// ErrTooLong is matched by the error about an input longer than the operator's MaxLen.
	ErrTooLong = errors.New("hyena: input too long")
)
