package mamba

import "github.com/subquad/subquad"

var (
	// ErrShape is matched by errors about the length of a slice or the shape of a
	// matrix, about tokens outside the vocabulary and states of another model.
	ErrShape = subquad.ErrShape
	// ErrConfig is matched by errors about a Config, SampleConfig or config.json.
	ErrConfig = subquad.ErrConfig
	// ErrCheckpoint is matched by errors about a checkpoint's tensors: missing,
	// of another shape, or not a well-formed file.
	ErrCheckpoint = subquad.ErrCheckpoint
	// ErrState is matched by errors about a stored state that cannot be read, and
	// about a snapshot that is not there.
	ErrState = subquad.ErrState
)
