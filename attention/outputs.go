package attention

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

var negInf = float32(math.Inf(-1))

// output is a matrix that a call writes.
type output struct {
	name       string
	m          blas32.General
	rows, cols int
	what       string // that cols are
	needed     bool
}

// checkOutputs wants outputs in shape, those that are not needed only where they
// are given, and no output to share elements with an input or another.
func checkOutputs(outputs []output, inputs ...blas32.General) error {
	for i, o := range outputs {
		if !o.needed && o.m.Rows == 0 && o.m.Data == nil {
			continue
		}
		if err := check.Matrix(ErrShape, "attention", o.name, o.m, o.rows, o.cols, o.what); err != nil {
			return err
		}
		for _, in := range inputs {
			if mat.Overlap(o.m, in) {
				return check.Errorf(ErrShape, "attention: %s shares elements with an input", o.name)
			}
		}
		for _, other := range outputs[:i] {
			if mat.Overlap(o.m, other.m) {
				return check.Errorf(ErrShape, "attention: %s shares elements with %s", o.name, other.name)
			}
		}
	}
	return nil
}
