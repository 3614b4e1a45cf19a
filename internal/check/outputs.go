package check

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/mat"
)

// Out is a matrix that a call writes.
type Out struct {
	Name       string
	M          blas32.General
	Rows, Cols int    // the shape that it should have
	What       string // Cols are
	Needed     bool   // otherwise only looked at where it is given
}

// Outputs returns an error, matching ErrShape, unless the outputs have their shapes and
// none shares elements with an input or another output.
func Outputs(pkg string, outputs []Out, inputs ...blas32.General) error {
	for i, o := range outputs {
		if !o.Needed && !mat.Given(o.M) {
			continue
		}
		if err := Matrix(subquad.ErrShape, pkg, o.Name, o.M, o.Rows, o.Cols, o.What); err != nil {
			return err
		}
		for _, in := range inputs {
			if mat.Overlap(o.M, in) {
				return Errorf(subquad.ErrShape, "%s: %s shares elements with an input", pkg, o.Name)
			}
		}
		for _, other := range outputs[:i] {
			if mat.Overlap(o.M, other.M) {
				return Errorf(subquad.ErrShape, "%s: %s shares elements with %s", pkg, o.Name, other.Name)
			}
		}
	}
	return nil
}
