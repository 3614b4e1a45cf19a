package longmamba

import (
	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
)

var (
	// ErrConfig is matched by errors about a Config, and about a block that a calibration
	// does not have.
	ErrConfig = subquad.ErrConfig
	// ErrShape is matched by errors about the shape of a matrix.
	ErrShape = subquad.ErrShape
	// ErrCall is matched by errors about a call that cannot be honoured.
	ErrCall = subquad.ErrCall
	// ErrState is matched by errors about a state that is not empty.
	ErrState = subquad.ErrState
	// ErrCalibration is matched by errors about a Calibration: of another model,
	// incomplete, not well formed, or made of what it cannot be made of. They match
	// ErrConfig too.
	ErrCalibration = check.Errorf(ErrConfig, "longmamba: wrong calibration")
)
