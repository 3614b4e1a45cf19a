package approx

import (
	"math"

	"github.com/subquad/subquad/internal/check"
)

// shape is what all operators know of their heads: H, G, D and Dv.
type shape struct{ heads, kvHeads, dim, valueDim int }

// maxDim bounds heads and widths.
const maxDim = 1 << 15

// newShape fills in the defaults and checks.
func newShape(heads, kvHeads, dim, valueDim, workers int) (s shape, err error) {
	if kvHeads == 0 {
		kvHeads = heads
	}
	if valueDim == 0 {
		valueDim = dim
	}
	fail := func(format string, args ...any) (shape, error) {
		return shape{}, check.Errorf(ErrConfig, "approx: "+format, args...)
	}
	switch {
	case heads <= 0 || heads > maxDim:
		return fail("Heads is %d, want 1 to %d", heads, maxDim)
	case kvHeads < 0 || heads%kvHeads != 0:
		return fail("KVHeads is %d, want a divisor of Heads = %d", kvHeads, heads)
	case dim <= 0 || dim > maxDim:
		return fail("HeadDim is %d, want 1 to %d", dim, maxDim)
	case valueDim < 0 || valueDim > maxDim:
		return fail("ValueDim is %d, want 0 to %d", valueDim, maxDim)
	case int64(heads)*int64(dim) > math.MaxInt32/64/int64(max(dim, valueDim)):
		return fail("%d heads of %d x %d are too many", heads, dim, valueDim)
	}
	return shape{heads, kvHeads, dim, valueDim}, check.Workers(ErrConfig, "approx", workers)
}

// group is how many query heads read a key head.
func (s *shape) group() int { return s.heads / s.kvHeads }

// checkEps reports what is no addend of a denominator or a feature.
func checkEps(eps float64) error {
	if !finite(float32(eps)) || eps < 0 {
		return check.Errorf(ErrConfig, "approx: Eps is %v, want a finite number, 0 or more", eps)
	}
	return nil
}

func finite(x float32) bool { return x-x == 0 }
