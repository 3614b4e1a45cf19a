package rwkv

import "github.com/subquad/subquad"

// The errors of this package match, with errors.Is, the sentinels of the whole module (see
// package subquad):
//
//   - ErrConfig: a Config, SampleConfig or config.json;
//   - ErrShape: the length of a slice or the shape of a matrix, and tokens outside the
//     vocabulary;
//   - ErrCall: the options of a call: offsets, workers, states and offsets that contradict
//     each other, a nil context;
//   - ErrState: a state: nil, of another model, given twice, one that cannot be read or
//     cannot go back to where Truncate is asked to;
//   - ErrCheckpoint: a checkpoint's tensors: missing, of another shape, or not a well-formed
//     file.
var ErrConfig, ErrShape, ErrCall, ErrState, ErrCheckpoint = subquad.ErrConfig, subquad.ErrShape, subquad.ErrCall, subquad.ErrState, subquad.ErrCheckpoint
