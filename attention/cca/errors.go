package cca

import "github.com/subquad/subquad"

// The errors of this package match, with errors.Is, the sentinels of the whole module (see
// package subquad), which are those of package attention too:
//
//   - ErrConfig: a Config;
//   - ErrShape: the shape of a matrix or slice;
//   - ErrCall: the options of a call;
//   - ErrState: a State that is another operator's, or cannot be read;
//   - ErrFull: a State or a pool of pages without room.
var ErrConfig, ErrShape, ErrCall, ErrState, ErrFull = subquad.ErrConfig, subquad.ErrShape, subquad.ErrCall, subquad.ErrState, subquad.ErrFull
