package catanet

import "github.com/subquad/subquad"

// The errors of this package match, with errors.Is, the sentinels of the whole module (see
// package subquad):
//
//   - ErrConfig: a configuration or weights;
//   - ErrShape: the shape of a matrix or slice;
//   - ErrCall: the options of a call, a negative bucket among them.
var ErrConfig, ErrShape, ErrCall = subquad.ErrConfig, subquad.ErrShape, subquad.ErrCall
