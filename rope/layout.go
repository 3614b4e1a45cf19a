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
// DeepSeek-V3's code makes.
func ConvertLayout(x blas32.General, headDim, rotaryDim int, to Layout) error {
	rotaryDim = or(rotaryDim, headDim)
	if err := checkLayout(headDim, rotaryDim, to); err != nil {
		return err
	}
	if err := check.Matrix(ErrShape, "rope", "x", x, -1, max(x.Cols, 0), "itself"); err != nil {
		return err
	}
	if x.Cols%headDim != 0 {
		return check.Errorf(ErrShape, "rope: x has %d columns, want a multiple of headDim = %d", x.Cols, headDim)
	}
	if x.Rows == 0 || x.Cols == 0 {
		return nil
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
// queries and keys.
func ConvertWeights(w blas32.General, headDim, rotaryDim int, to Layout) error {
	rotaryDim = or(rotaryDim, headDim)
	if err := checkLayout(headDim, rotaryDim, to); err != nil {
		return err
	}
	if err := check.Matrix(ErrShape, "rope", "w", w, -1, max(w.Cols, 0), "itself"); err != nil {
		return err
	}
	if w.Rows%headDim != 0 {
		return check.Errorf(ErrShape, "rope: w has %d rows, want a multiple of headDim = %d", w.Rows, headDim)
	}
	if w.Rows == 0 || w.Cols == 0 {
		return nil
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

func checkLayout(headDim, rotaryDim int, to Layout) error {
	switch {
	case headDim <= 0:
		return configErrorf("headDim is %d, want more than 0", headDim)
	case rotaryDim <= 0 || rotaryDim%2 != 0 || rotaryDim > headDim:
		return configErrorf("the rotary dimension is %d, want an even number from 2 to headDim = %d", rotaryDim, headDim)
	case to > Interleaved:
		return configErrorf("Layout is %d", to)
	}
	return nil
}
