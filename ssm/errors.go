package ssm

import (
	"errors"

	"github.com/subquad/subquad"
)

var (
	// ErrShape is matched by errors about the shape of a matrix or slice, and about
	// states that belong to another operator.
	ErrShape = subquad.ErrShape
	// ErrConfig is matched by errors about a Config or weights.
	ErrConfig = subquad.ErrConfig
	// ErrState is matched by errors about a stored state that cannot be read, and
	// about a snapshot that is not there.
	ErrState = subquad.ErrState
	// ErrCalibration is matched by errors about a Calibration: of another model,
	// incomplete, not well formed, or made of what it cannot be made of.
	ErrCalibration = errors.New("ssm: wrong calibration")
)
