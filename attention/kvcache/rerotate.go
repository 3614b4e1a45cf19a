package kvcache

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/rope"
)

// Rerotate moves keys [tokens, heads*HeadDim] that a rotation turned to the positions from
// (one for each row) to the positions 0, 1, 2 ...: what is kept of a past closes up, for
// caches that hold rotated keys. Angles are those of the differences. Errors match
// ErrShape and ErrCall.
func Rerotate(k blas32.General, r *rope.Rotation, from []int64) error {
	if r == nil {
		return check.Errorf(ErrCall, "kvcache: the rotation is nil")
	}
	if k.Rows != len(from) {
		return check.Errorf(ErrShape, "kvcache: %d positions for k with %d rows", len(from), k.Rows)
	}
	d := r.Config().HeadDim
	if d < 1 || k.Cols < 0 || k.Cols%d != 0 {
		return check.Errorf(ErrShape, "kvcache: k has %d columns, want a multiple of HeadDim = %d", k.Cols, d)
	}
	if err := check.Matrix(ErrShape, "kvcache", "k", k, -1, k.Cols, "columns"); err != nil {
		return err
	}
	for i, p := range from {
		if err := r.Shift(mat.Rows(k, i, i+1), int64(i)-p); err != nil {
			return check.Errorf(ErrCall, "kvcache: %v", err)
		}
	}
	return nil
}
