package layers

import (
	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
)

// The errors of this package match, with errors.Is, the sentinels of the whole module (see
// package subquad):
//
//   - ErrConfig: a configuration or weights;
//   - ErrShape: the shape of a matrix or slice;
//   - ErrCall: the options of a call.
var ErrConfig, ErrShape, ErrCall = subquad.ErrConfig, subquad.ErrShape, subquad.ErrCall

// maxWidth bounds the widths of a configuration, so that products of them fit.
const maxWidth = 1 << 15

// size is a number of a configuration, by name.
type size struct {
	name  string
	value int
}

// sizes returns an error unless each is from 1 to maxWidth.
func sizes(list ...size) error {
	for _, s := range list {
		if s.value <= 0 || s.value > maxWidth {
			return check.Errorf(ErrConfig, "layers: %s is %d, want 1 to %d", s.name, s.value, maxWidth)
		}
	}
	return nil
}
