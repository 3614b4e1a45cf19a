package hyena

import (
	"errors"

	"github.com/subquad/subquad"
)

var (
	// ErrShape is matched by errors about the shape of a matrix or slice.
	ErrShape = subquad.ErrShape
	// ErrConfig is matched by errors about a Config or weights.
	ErrConfig = subquad.ErrConfig
	// ErrTooLong is matched by the error about an input longer than the operator's MaxLen.
	ErrTooLong = errors.New("hyena: input too long")
)
