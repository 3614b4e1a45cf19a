package sparse

import "github.com/subquad/subquad"

// The errors of this package match, with errors.Is, the sentinels of the whole module (see
// package subquad):
//
//   - ErrConfig: a Config;
//   - ErrShape: the shape of a matrix or slice;
//   - ErrCall: the options of a call, choices of blocks among them;
//   - ErrState: a State that is another operator's, or cannot be read;
//   - ErrFull: a State without room.
var ErrConfig, ErrShape, ErrCall, ErrState, ErrFull = subquad.ErrConfig, subquad.ErrShape, subquad.ErrCall, subquad.ErrState, subquad.ErrFull
