package catanet

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
)

// AssignCenters sets bucket [tokens] to the centre whose direction is nearest to each
// row of x [tokens, dim], by the cosine, the first of those equally near; centres are
// [centres, dim], one or more. A row that is not finite gets bucket 0. Errors match ErrShape.
func AssignCenters(bucket []int32, x, centers blas32.General) error {
	if err := checkCenters(x, centers); err != nil {
		return err
	}
	if len(bucket) != x.Rows {
		return check.Errorf(ErrShape, "catanet: bucket has %d elements, want the rows of x = %d", len(bucket), x.Rows)
	}
	var a nearest
	a.pack(kernel.NewAttentionTile(), centers)
	a.assign(bucket, x)
	return nil
}

func checkCenters(x, centers blas32.General) error {
	if err := check.Matrix(ErrShape, "catanet", "x", x, -1, max(x.Cols, 0), "columns"); err != nil {
		return err
	}
	if err := check.Matrix(ErrShape, "catanet", "the centres", centers, -1, x.Cols, "the columns of x"); err != nil {
		return err
	}
	if x.Cols > maxWidth {
		return check.Errorf(ErrShape, "catanet: x has %d columns, want at most %d", x.Cols, maxWidth)
	}
	if centers.Rows == 0 {
		return check.Errorf(ErrShape, "catanet: there are 0 centres, want 1 or more")
	}
	return nil
}

// maxIterations bounds the iterations of FitCenters.
const maxIterations = 1 << 14

// FitCenters improves centres [centres, dim] by spherical k-means on the rows of x
// [tokens, dim], and leaves them in dst, each of length 1: in every iteration a token
// goes to the nearest centre, and a centre becomes the direction of the sum of its
// tokens, all of length 1. A centre without tokens keeps its direction. dst may be
// centres. It is for fitting offline, and allocates. It costs 2 tokens centres dim flop
// an iteration, of which there may be 16,384. Errors match ErrShape or ErrCall.
func FitCenters(dst, x, centers blas32.General, iterations int) error {
	if err := checkCenters(x, centers); err != nil {
		return err
	}
	if err := check.Output(ErrShape, "catanet", dst, centers.Rows, centers.Cols, "the centres' columns", centers, true); err != nil {
		return err
	}
	switch {
	case mat.Overlap(dst, x):
		return check.Errorf(ErrShape, "catanet: dst shares elements with x")
	case iterations < 0 || iterations > maxIterations:
		return check.Errorf(ErrCall, "catanet: %d iterations, want 0 to %d", iterations, maxIterations)
	}
	for j := range centers.Rows {
		normaliseRow(mat.Row(dst, j), mat.Row(centers, j))
	}
	tile := kernel.NewAttentionTile()
	bucket, sums, unit := make([]int32, x.Rows), mat.Of(make([]float32, dst.Rows*dst.Cols), dst.Rows, dst.Cols), make([]float32, x.Cols)
	members := make([]int, dst.Rows)
	for range iterations {
		var a nearest
		a.pack(tile, dst)
		a.assign(bucket, x)
		clear(sums.Data)
		clear(members)
		for t, j := range bucket {
			normaliseRow(unit, mat.Row(x, t))
			asm.Add(mat.Row(sums, int(j)), mat.Row(sums, int(j)), unit)
			members[j]++
		}
		for j, n := range members {
			if n > 0 {
				normaliseRow(mat.Row(dst, j), mat.Row(sums, j))
			}
		}
	}
	return nil
}

// MoveCenters moves centres toward fitted ones, both [centres, dim]: means = decay means
// + (1 - decay) fitted, as training does with a decay of 0.999. Errors match ErrShape or
// ErrCall.
func MoveCenters(means, fitted blas32.General, decay float32) error {
	if err := check.Matrix(ErrShape, "catanet", "means", means, -1, max(means.Cols, 0), "columns"); err != nil {
		return err
	}
	if err := check.Matrix(ErrShape, "catanet", "fitted", fitted, means.Rows, means.Cols, "the columns of means"); err != nil {
		return err
	}
	switch {
	case mat.Overlap(means, fitted):
		return check.Errorf(ErrShape, "catanet: means shares elements with fitted")
	case !(decay >= 0 && decay <= 1):
		return check.Errorf(ErrCall, "catanet: decay is %v, want 0 to 1", decay)
	}
	for j := range means.Rows {
		d := mat.Row(means, j)
		asm.Scale(d, decay, d)
		asm.Axpy(d, 1-decay, mat.Row(fitted, j))
	}
	return nil
}
