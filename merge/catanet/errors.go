package catanet

import "github.com/subquad/subquad"

var (
	// ErrShape is matched by errors about the shape of a matrix or slice.
	ErrShape = subquad.ErrShape
	// ErrConfig is matched by errors about a configuration or weights.
	ErrConfig = subquad.ErrConfig
	// ErrCall is matched by errors about the options of a call, a negative bucket
	// among them.
	ErrCall = subquad.ErrCall
)
