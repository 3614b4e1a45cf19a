package delta

import "github.com/subquad/subquad"

// What errors match, with errors.Is: the values of package subquad, which all packages
// share.
var (
	// ErrConfig is matched by errors about a Config, weights and a StateConfig.
	ErrConfig = subquad.ErrConfig
	// ErrShape is matched by errors about the sizes of matrices in a call.
	ErrShape = subquad.ErrShape
	// ErrCall is matched by errors about options that contradict each other.
	ErrCall = subquad.ErrCall
	// ErrState is matched by errors about states.
	ErrState = subquad.ErrState
	// ErrFull is matched by errors about more tokens than a state can count.
	ErrFull = subquad.ErrFull
)
