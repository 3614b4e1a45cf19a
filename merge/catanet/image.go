package catanet

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// ImageCall is a call of TAB or LRSA. Workers is optional.
type ImageCall struct {
	// Dst and X are [images*Height*Width, Dim], the pixels of an image line after line.
	// Dst may be X, and shares no element with it otherwise.
	Dst, X blas32.General
	// Height and Width are those of every image, in pixels.
	Height, Width int
	// Workers is how many goroutines the call may use; 0 stands for the Config's.
	Workers int
}

// checkImages reports what is wrong with a call.
func (c *ImageCall) checkImages(ctx context.Context, dim int) error {
	if err := check.Call("catanet", ctx, c != nil); err != nil {
		return err
	}
	if c.Height <= 0 || c.Width <= 0 || c.Height > maxTokens/c.Width {
		return check.Errorf(ErrShape, "catanet: an image of %d x %d, want 1 or more each, and at most %d pixels", c.Height, c.Width, maxTokens)
	}
	if err := check.Matrix(ErrShape, "catanet", "x", c.X, -1, dim, "Dim"); err != nil {
		return err
	}
	if c.X.Rows%(c.Height*c.Width) != 0 || c.X.Rows > maxTokens {
		return check.Errorf(ErrShape, "catanet: x has %d rows, want a multiple of %d x %d", c.X.Rows, c.Height, c.Width)
	}
	if err := check.Output(ErrShape, "catanet", c.Dst, c.X.Rows, dim, "Dim", c.X, true); err != nil {
		return err
	}
	return check.Workers(ErrCall, "catanet", c.Workers)
}

// maxWidth bounds the numbers of a TABConfig or LRSAConfig, so that products fit, and the
// width of a token, so that a kernel's call is short; maxTokens bounds the tokens of a
// call, so that they fit in an int32.
const (
	maxWidth  = 1 << 15
	maxTokens = math.MaxInt32 / 2
)

// positive returns an error unless each of the values is from 1 to maxWidth.
func positive(what string, names []string, values []int) error {
	for i, v := range values {
		if v <= 0 || v > maxWidth {
			return check.Errorf(ErrConfig, "catanet: %s.%s is %d, want 1 to %d", what, names[i], v, maxWidth)
		}
	}
	return nil
}

// room returns how many float32 the working memory of a call has, or an error where they
// are more than a 32-bit machine can address.
func room(floats int64) (int, error) {
	if floats > math.MaxInt/8 {
		return 0, check.Errorf(ErrShape, "catanet: the call takes %d float32 of working memory, want at most %d", floats, int64(math.MaxInt/8))
	}
	return int(floats), nil
}

// within runs attention within an operator; its errors begin with this package's name.
func within(ctx context.Context, op attention.Operator, call *attention.Call) error {
	return check.Wrap(ctx, "catanet", op.Run(ctx, call))
}

// cutter cuts matrices, one after the other, from the memory of a call.
type cutter struct{ rest []float32 }

func (c *cutter) take(rows, cols int) blas32.General {
	m := mat.Of(c.rest, rows, cols)
	c.rest = c.rest[rows*cols:]
	return m
}

// mirror returns a place from 0 to n-1: places from n on run backwards, and forwards
// again from 2n on, as often as need be.
func mirror(place, n int) int {
	if place %= 2 * n; place >= n {
		place = 2*n - 1 - place
	}
	return place
}
