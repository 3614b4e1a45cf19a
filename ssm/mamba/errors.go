package mamba

import "errors"

var (
	// ErrShape is matched by errors about the length of a slice or the shape of a
	// matrix, about tokens outside the vocabulary and states of another model.
	ErrShape = errors.New("mamba: wrong shape")
	// ErrConfig is matched by errors about a Config, SampleConfig or config.json.
	ErrConfig = errors.New("mamba: wrong configuration")
	// ErrCheckpoint is matched by errors about a checkpoint's tensors: missing,
	// of another shape, or not a well-formed file.
	ErrCheckpoint = errors.New("mamba: wrong checkpoint")
	// ErrState is matched by errors about a stored state that cannot be read, and
	// about a snapshot that is not there.
	ErrState = errors.New("mamba: wrong state")
)
