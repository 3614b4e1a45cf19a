package rope

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// ConvertLayout reorders the first rotaryDim features of every head of x, in
// place, from the other layout to to: from interleaved to Half, feature 2i goes to
// i and 2i+1 to rotaryDim/2 + i. Products of queries and keys do not change when
// both are converted. rotaryDim 0 is headDim. It is for preparing data, and
// allocates.
//
// Interleaved queries and keys that are converted and then rotated as Half are what
// DeepSeek-V3's code makes. Errors match ErrConfig or ErrShape.
func ConvertLayout(x blas32.General, headDim, rotaryDim int, to Layout) error {
	rotaryDim = or(rotaryDim, headDim)
	if err := checkLayout("x", x, "columns", x.Cols, headDim, rotaryDim, to); err != nil || x.Rows == 0 || x.Cols == 0 {
		return err
	}
	old := make([]float32, rotaryDim)
	for r := range x.Rows {
		row := mat.Row(x, r)
		for h := 0; h < len(row); h += headDim {
			copy(old, row[h:])
			for i := range rotaryDim {
				row[h+convert(i, rotaryDim, to)] = old[i]
			}
		}
	}
	return nil
}

// ConvertWeights is ConvertLayout for the rows of a projection [heads * headDim,
// inputs], whose outputs are then in the other layout: a checkpoint's weights of
// queries and keys. Errors match ErrConfig or ErrShape.
func ConvertWeights(w blas32.General, headDim, rotaryDim int, to Layout) error {
	rotaryDim = or(rotaryDim, headDim)
	if err := checkLayout("w", w, "rows", w.Rows, headDim, rotaryDim, to); err != nil || w.Rows == 0 || w.Cols == 0 {
		return err
	}
	old := make([]float32, rotaryDim*w.Cols)
	for h := 0; h < w.Rows; h += headDim {
		for i := range rotaryDim {
			copy(old[i*w.Cols:], mat.Row(w, h+i))
		}
		for i := range rotaryDim {
			copy(mat.Row(w, h+convert(i, rotaryDim, to)), old[i*w.Cols:])
		}
	}
	return nil
}

// convert is where a feature goes.
func convert(i, rotaryDim int, to Layout) int {
	if to == Half {
		return i%2*rotaryDim/2 + i/2
	}
	half := rotaryDim / 2
	return i%half*2 + i/half
}

// checkLayout returns an error about a matrix that cannot be converted: features is how
// many it has, in its rows or columns, as what says.
func checkLayout(name string, m blas32.General, what string, features, headDim, rotaryDim int, to Layout) error {
	switch {
	case headDim <= 0:
		return configErrorf("headDim is %d, want more than 0", headDim)
	case rotaryDim <= 0 || rotaryDim%2 != 0 || rotaryDim > headDim:
		return configErrorf("the rotary dimension is %d, want an even number from 2 to headDim = %d", rotaryDim, headDim)
	case to > Interleaved:
		return configErrorf("Layout is %d", to)
	}
	if err := check.Matrix(ErrShape, "rope", name, m, -1, max(m.Cols, 0), "itself"); err != nil {
		return err
	}
	if features%headDim != 0 {
		return check.Errorf(ErrShape, "rope: %s has %d %s, want a multiple of headDim = %d", name, features, what, headDim)
	}
	return nil
}
