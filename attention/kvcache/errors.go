package kvcache

import (
	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/check"
)

// The errors of this package match, with errors.Is, the sentinels of the whole module
// (see package subquad).
var ErrConfig, ErrShape, ErrCall, ErrState, ErrFull = subquad.ErrConfig, subquad.ErrShape, subquad.ErrCall, subquad.ErrState, subquad.ErrFull

// named gives an error of package attention this package's name.
func named(err error) error {
	if err == nil {
		return nil
	}
	return check.Named("kvcache", err)
}
