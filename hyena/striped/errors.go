package striped

import "github.com/subquad/subquad"

var (
	// ErrShape is matched by errors about the length of a slice or the shape of a
	// matrix, and about tokens outside the vocabulary.
	ErrShape = subquad.ErrShape
	// ErrCall is matched by errors about the options of a call.
	ErrCall = subquad.ErrCall
	// ErrConfig is matched by errors about a Config or config.json.
	ErrConfig = subquad.ErrConfig
	// ErrState is matched by errors about a state that is nil, another model's, or cannot
	// go back as far.
	ErrState = subquad.ErrState
	// ErrFull is matched by the error about more tokens than a state may have.
	ErrFull = subquad.ErrFull
	// ErrCheckpoint is matched by errors about a checkpoint's tensors: missing, of another
	// shape, or not a well-formed file.
	ErrCheckpoint = subquad.ErrCheckpoint
)
