package dna

import "errors"

var (
	// ErrShape is matched by errors about the length of a slice or the shape of a
	// matrix, and about tokens outside the vocabulary.
	ErrShape = errors.New("dna: wrong shape")
	// ErrConfig is matched by errors about a Config, TokenizerConfig or config.json.
	ErrConfig = errors.New("dna: wrong configuration")
	// ErrTooLong is matched by the error about more tokens than the model's MaxLen.
	ErrTooLong = errors.New("dna: input too long")
	// ErrCheckpoint is matched by errors about a checkpoint's tensors: missing,
	// of another shape, or not a well-formed file.
	ErrCheckpoint = errors.New("dna: wrong checkpoint")
	// ErrFASTA is matched by errors about text that is not FASTA.
	ErrFASTA = errors.New("dna: not FASTA")
)
