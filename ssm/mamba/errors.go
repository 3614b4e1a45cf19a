package mamba

import "github.com/subquad/subquad"

var (
	// ErrShape is matched by errors about the length of a slice or the shape of a
	// matrix, and about tokens outside the vocabulary.
	ErrShape = subquad.ErrShape
	// ErrConfig is matched by errors about a Config, SampleConfig or config.json.
	ErrConfig = subquad.ErrConfig
	// ErrCheckpoint is matched by errors about a checkpoint's tensors: missing,
	// of another shape, or not a well-formed file.
	ErrCheckpoint = subquad.ErrCheckpoint
	// ErrCall is matched by errors about the options of a call: offsets, workers, states
	// and offsets that contradict each other, a nil context.
	ErrCall = subquad.ErrCall
	// ErrState is matched by errors about a state: nil, of another model, given twice, one
	// that cannot be read or cannot go back to where Truncate is asked to.
	ErrState = subquad.ErrState
)
