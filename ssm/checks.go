package ssm

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// size is a number of a Config or a dimension of a weight, at least 1.
type size struct {
	name string
	n    int
}

func checkSizes(list ...size) error {
	for _, s := range list {
		if s.n <= 0 || s.n > maxSize {
			return check.Errorf(ErrConfig, "ssm: %s is %d, want 1 to %d", s.name, s.n, maxSize)
		}
	}
	return nil
}

// matrixWeight is a matrix of weights and the shape that it must have.
type matrixWeight struct {
	name       string // as the caller knows it
	m          blas32.General
	rows, cols int    // those that it must have
	what       string // that says how many columns there are
}

func checkMatrices(list ...matrixWeight) error {
	for _, w := range list {
		if err := check.Matrix(ErrConfig, "ssm", w.name, w.m, w.rows, w.cols, w.what); err != nil {
			return err
		}
	}
	return nil
}

// vectorWeight is a vector of weights and how many elements it must have, unless it is
// nil where it may be.
type vectorWeight struct {
	name     string // as the caller knows it
	v        []float32
	n        int    // how many elements it must have
	what     string // that says how many elements there are
	optional bool   // nil is allowed
}

func checkVectors(list ...vectorWeight) error {
	for _, w := range list {
		if w.v == nil && w.optional {
			continue
		}
		if err := check.Vector(ErrConfig, "ssm", w.name, w.v, w.n, w.what); err != nil {
			return err
		}
	}
	return nil
}

// checkFinite returns an error unless all elements of a matrix of weights are numbers.
func checkFinite(name string, m blas32.General) error {
	for t := range m.Rows {
		for i, v := range mat.Row(m, t) {
			if v-v != 0 {
				return check.Errorf(ErrConfig, "ssm: %s[%d][%d] is %v, want a finite number", name, t, i, v)
			}
		}
	}
	return nil
}

// checkGroups returns an error unless groups divide what they are groups of.
func checkGroups(groups, n int, what string) error {
	if n%groups != 0 {
		return check.Errorf(ErrConfig, "ssm: Groups is %d, want a divisor of %s = %d", groups, what, n)
	}
	return nil
}

// checkDt returns an error unless least and most can be limits of dt.
func checkDt(least, most float32) error {
	switch {
	case !(least >= 0) || math.IsInf(float64(least), 0):
		return check.Errorf(ErrConfig, "ssm: DtMin is %v, want a finite number, 0 or more", least)
	case most != 0 && !(most >= least) || math.IsInf(float64(most), 0):
		return check.Errorf(ErrConfig, "ssm: DtMax is %v, want a finite number, at least DtMin = %v, or 0 for no limit", most, least)
	}
	return nil
}

func checkEps(eps float64) error {
	if !(eps > 0) || math.IsInf(eps, 0) {
		return check.Errorf(ErrConfig, "ssm: Eps is %v, want a finite number above 0", eps)
	}
	return nil
}

func checkFormat(f asm.Format) error {
	if f > asm.Float16 {
		return check.Errorf(ErrConfig, "ssm: Format is %d, want %d to %d", f, asm.Float32, asm.Float16)
	}
	return nil
}

// input is a matrix of a call, [n, cols].
type input struct {
	name   string // as the caller knows it
	m      blas32.General
	cols   int    // how many columns it must have
	what   string // that says how many columns there are
	absent bool   // the call must not give it
}

// checkInputs returns an error unless dst is a matrix of n rows as the first of inputs,
// which it may be, and the inputs have n rows that dst shares no element with.
func checkInputs(dst blas32.General, n int, inputs []input) error {
	for _, in := range inputs {
		if in.absent {
			if mat.Given(in.m) {
				return check.Errorf(ErrCall, "ssm: %s is given, but the weights have it", in.name)
			}
			continue
		}
		if err := check.Matrix(ErrShape, "ssm", in.name, in.m, n, in.cols, in.what); err != nil {
			return err
		}
	}
	first := inputs[0]
	if err := check.Output(ErrShape, "ssm", dst, n, first.cols, first.what, first.m, true); err != nil {
		return err
	}
	for _, in := range inputs[1:] {
		if !in.absent && mat.Overlap(dst, in.m) {
			return check.Errorf(ErrShape, "ssm: dst shares elements with %s", in.name)
		}
	}
	return nil
}
