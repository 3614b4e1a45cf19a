package hyena

import (
	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
)

// The errors of this package match, with errors.Is, the sentinels of the whole module (see
// package subquad):
//
//   - ErrConfig: a Config or weights;
//   - ErrShape: the shape of a matrix or the length of a slice;
//   - ErrCall: what else a call asks for: Workers, a nil context or call, a negative number
//     of tokens;
//   - ErrState: a state that is nil, of another operator, or cannot go back as far;
//   - ErrFull: more tokens than a state may have.
var (
	ErrConfig, ErrShape, ErrCall = subquad.ErrConfig, subquad.ErrShape, subquad.ErrCall
	ErrState, ErrFull            = subquad.ErrState, subquad.ErrFull
)

// ErrTooLong is matched by the error about more tokens than an operator's MaxLen. It
// matches ErrShape too.
var ErrTooLong = check.Errorf(ErrShape, "hyena: input too long")

// pkg begins the errors of the package.
const pkg = "hyena"
