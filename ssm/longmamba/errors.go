package longmamba

import (
	"fmt"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
)

// The errors of this package match, with errors.Is, the sentinels of the whole module (see
// package subquad):
//
//   - ErrConfig: a Config, and a block that a calibration does not have;
//   - ErrShape: the shape of a matrix;
//   - ErrCall: a call that cannot be honoured;
//   - ErrState: a state that is not empty;
//   - ErrCheckpoint: a stored calibration.
var ErrConfig, ErrShape, ErrCall, ErrState, ErrCheckpoint = subquad.ErrConfig, subquad.ErrShape, subquad.ErrCall, subquad.ErrState, subquad.ErrCheckpoint

// ErrCalibration is matched by errors about a Calibration: of another model, incomplete,
// not well formed, or made of what it cannot be made of. They match ErrConfig too.
var ErrCalibration = check.Errorf(ErrConfig, "longmamba: wrong calibration")

// errFile is what errors about a stored calibration match: both.
var errFile = fmt.Errorf("%w: %w", ErrCalibration, ErrCheckpoint)
