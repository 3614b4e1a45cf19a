package merge

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// MeanHeads sets dst [tokens, dim] to the mean over heads of x [tokens, heads*dim]: of
// attention's keys, it is the metric of ToMe. dst shares no element with x. Errors match
// ErrShape or ErrCall.
func MeanHeads(dst, x blas32.General, heads int) error {
	if heads <= 0 {
		return check.Errorf(ErrCall, "merge: heads is %d, want 1 or more", heads)
	}
	if err := check.Matrix(ErrShape, "merge", "x", x, -1, max(x.Cols, 0), "columns"); err != nil {
		return err
	}
	if x.Cols%heads != 0 {
		return check.Errorf(ErrShape, "merge: x has %d columns, want a multiple of heads = %d", x.Cols, heads)
	}
	if err := check.Output(ErrShape, "merge", dst, x.Rows, x.Cols/heads, "the matrix's columns / heads", x, false); err != nil {
		return err
	}
	for t := range x.Rows {
		d, from := mat.Row(dst, t), mat.Row(x, t)
		copy(d, from)
		for h := 1; h < heads; h++ {
			asm.Add(d, d, from[h*len(d):][:len(d)])
		}
		asm.Scale(d, 1/float32(heads), d)
	}
	return nil
}

// LogSizes sets dst [tokens] to the logarithms of sizes: the log-weights of the keys by
// which attention counts a merged token as the tokens it stands for, softmax(q k^T scale
// + log s). dst may be size. Errors match ErrShape or ErrCall.
func LogSizes(dst, size []float32) error {
	if err := check.Vector(ErrShape, "merge", "dst", dst, len(size), "the sizes"); err != nil {
		return err
	}
	if err := check.Positive(ErrCall, "merge", "size", size); err != nil {
		return err
	}
	for t, s := range size {
		dst[t] = float32(math.Log(float64(s)))
	}
	return nil
}
