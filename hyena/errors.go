package hyena

import (
	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
)

var (
	// ErrShape is matched by errors about the shape of a matrix or the length of a slice.
	ErrShape = subquad.ErrShape
	// ErrConfig is matched by errors about a Config or weights.
	ErrConfig = subquad.ErrConfig
	// ErrCall is matched by errors about what else a call asks for: Workers, a nil
	// context or call, a negative number of tokens.
	ErrCall = subquad.ErrCall
	// ErrTooLong is matched by the error about more tokens than an operator's MaxLen.
	// It matches ErrShape too.
	ErrTooLong = check.Errorf(ErrShape, "hyena: input too long")
)

// pkg begins the errors of the package.
const pkg = "hyena"
