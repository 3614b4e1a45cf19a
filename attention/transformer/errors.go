package transformer

import "github.com/subquad/subquad"

// Errors of this package match one of these.
var (
	// ErrConfig is about a Config, a config.json, or a StateConfig.
	ErrConfig = subquad.ErrConfig
	// ErrShape is about matrices, vectors and tokens that do not fit.
	ErrShape = subquad.ErrShape
	// ErrCall is about options of a call.
	ErrCall = subquad.ErrCall
	// ErrState is about a state.
	ErrState = subquad.ErrState
	// ErrFull is about tokens that a state has no room for.
	ErrFull = subquad.ErrFull
	// ErrCheckpoint is about a file, and names the tensor.
	ErrCheckpoint = subquad.ErrCheckpoint
)
