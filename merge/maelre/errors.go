package maelre

import "github.com/subquad/subquad"

// The errors of this package match, with errors.Is, the sentinels of the whole module (see
// package subquad):
//
//   - ErrConfig: a Config or weights;
//   - ErrShape: the shape of a matrix or slice;
//   - ErrCall: the options of a call, a size that is not positive among them;
//   - ErrCheckpoint: a file of weights; the error names the tensor.
var ErrConfig, ErrShape, ErrCall, ErrCheckpoint = subquad.ErrConfig, subquad.ErrShape, subquad.ErrCall, subquad.ErrCheckpoint
