package ssm

import "github.com/subquad/subquad"

// The errors of this package match, with errors.Is, the sentinels of the whole module (see
// package subquad):
//
//   - ErrConfig: a Config or weights;
//   - ErrShape: the shape of a matrix, and outputs that share elements with inputs;
//   - ErrCall: the options of a call: missing, that contradict each other, or that an
//     operator cannot honour;
//   - ErrState: a state: nil, of another operator, given twice, truncated to where it has no
//     snapshot, or stored in a way that cannot be read;
//   - ErrFull: a state that would have seen more tokens than it can count.
var ErrConfig, ErrShape, ErrCall, ErrState, ErrFull = subquad.ErrConfig, subquad.ErrShape, subquad.ErrCall, subquad.ErrState, subquad.ErrFull
