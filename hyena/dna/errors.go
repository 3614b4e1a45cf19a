package dna

import (
	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
)

var (
	// ErrShape is matched by errors about the length of a slice or the shape of a
	// matrix, and about tokens outside the vocabulary.
	ErrShape = subquad.ErrShape
	// ErrCall is matched by errors about the options of a call: workers, offsets, outputs
	// that the checkpoint has no head for, a nil context.
	ErrCall = subquad.ErrCall
	// ErrConfig is matched by errors about a Config, TokenizerConfig or config.json.
	ErrConfig = subquad.ErrConfig
	// ErrState is matched by errors about a State: nil, of another model, truncated to where
	// it cannot go, or stored in a way that cannot be read.
	ErrState = subquad.ErrState
	// ErrFull is matched by the error about more tokens than a State's MaxTokens.
	ErrFull = subquad.ErrFull
	// ErrTooLong is matched by the error about more tokens than the model's MaxLen. It
	// matches ErrShape too.
	ErrTooLong = check.Errorf(ErrShape, "dna: input too long")
	// ErrCheckpoint is matched by errors about a checkpoint's tensors: missing,
	// of another shape, or not a well-formed file.
	ErrCheckpoint = subquad.ErrCheckpoint
	// ErrFASTA is matched by errors about text that is not FASTA. It matches ErrCheckpoint,
	// as every error about what is in a file does.
	ErrFASTA = check.Errorf(ErrCheckpoint, "dna: not FASTA")
)
