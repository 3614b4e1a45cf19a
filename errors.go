package subquad

import "errors"

// One mistake, one sentinel: errors of every package of this module match, with
// errors.Is, the one that says what kind of mistake was made. A package's own name
// for one (attention.ErrShape) is the same value.
var (
	// ErrConfig is matched by errors about a Config, the weights of an operator, or a
	// configuration file.
	ErrConfig = errors.New("subquad: wrong configuration")
	// ErrShape is matched by errors about a matrix or vector of the wrong size, and
	// about outputs that share elements with inputs.
	ErrShape = errors.New("subquad: wrong shape")
	// ErrCall is matched by errors about the options of a call: that contradict each
	// other, that the operator cannot honour, or that are missing.
	ErrCall = errors.New("subquad: wrong options of a call")
	// ErrState is matched by errors about a state: nil, of another operator, given
	// twice, truncated to where it cannot go, or stored in a way that cannot be read.
	ErrState = errors.New("subquad: wrong state")
	// ErrFull is matched by errors about a state or a pool of pages without room.
	ErrFull = errors.New("subquad: no room")
	// ErrCheckpoint is matched by errors about a file of weights: not well formed, or
	// with a tensor or key that is missing or not as it should be.
	ErrCheckpoint = errors.New("subquad: wrong checkpoint")
)
