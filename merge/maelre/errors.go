package maelre

import "github.com/subquad/subquad"

var (
	// ErrShape is matched by errors about the shape of a matrix or slice.
	ErrShape = subquad.ErrShape
	// ErrConfig is matched by errors about a Config or weights.
	ErrConfig = subquad.ErrConfig
	// ErrCall is matched by errors about the options of a call, a size that is not
	// positive among them.
	ErrCall = subquad.ErrCall
	// ErrCheckpoint is matched by errors about a file of weights, which name the tensor.
	ErrCheckpoint = subquad.ErrCheckpoint
)
