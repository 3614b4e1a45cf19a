package golden

import (
	"fmt"
	"slices"
	"strings"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/mat"
)

// Elements is a tensor cut into the elements of its first axis: those of a batch, or
// the steps of a sequence. The zero value is that of a tensor which a file lacks.
type Elements struct {
	data []float32
	each int
}

// Elements returns a tensor, which a file may lack, cut along its first axis.
func (f *File) Elements(name string) Elements {
	f.t.Helper()
	if !f.Has(name) {
		return Elements{}
	}
	n := 1
	for _, d := range f.Shape(name)[1:] {
		n *= d
	}
	return Elements{f.Float32(name), n}
}

// Initial returns an initial state, which files name in several ways: after one of
// names, "initial_" before it or "0" after it. Where there is none of these, and the
// metadata "inputs" is a list, it is the input that has one of names in its own. It fails
// the test where there are two.
func (f *File) Initial(names ...string) Elements {
	f.t.Helper()
	var found []string
	add := func(name string) {
		if f.Has(name) && !slices.Contains(found, name) {
			found = append(found, name)
		}
	}
	for _, name := range names {
		for _, pattern := range []string{"initial_%s", "initial_%ss", "%s0", "%s_0", "%s_init", "init_%s"} {
			add(fmt.Sprintf(pattern, name))
		}
	}
	for _, name := range names {
		for _, input := range f.Inputs() {
			if len(found) == 0 && strings.Contains(input, name) {
				add(input)
			}
		}
	}
	switch len(found) {
	case 0:
		return Elements{}
	case 1:
		return f.Elements(found[0])
	}
	f.t.Fatalf("initial states %v, want one", found)
	return Elements{}
}

// Inputs returns the tensors that the metadata "inputs" lists; nil where it does not.
func (f *File) Inputs() (names []string) { return f.list("inputs") }

// Given tells whether the file has the tensor.
func (e Elements) Given() bool { return e.data != nil }

// At returns element i, nil where the tensor is missing.
func (e Elements) At(i int) []float32 {
	if e.data == nil {
		return nil
	}
	return e.data[i*e.each:][:e.each]
}

// Matrix returns element i as rows x cols, the zero matrix where the tensor is missing.
func (e Elements) Matrix(i, rows, cols int) blas32.General {
	if e.data == nil {
		return blas32.General{}
	}
	return mat.Of(e.At(i), rows, cols)
}

// Columns returns element i, which is [cols, rows], turned around.
func (e Elements) Columns(i, rows, cols int) blas32.General {
	if e.data == nil {
		return blas32.General{}
	}
	return Transposed(e.Matrix(i, cols, rows))
}

// Transposed returns m turned around, in memory of its own.
func Transposed(m blas32.General) blas32.General {
	t := mat.New(m.Cols, m.Rows)
	for i := range m.Rows {
		for j, v := range mat.Row(m, i) {
			mat.Row(t, j)[i] = v
		}
	}
	return t
}

// Optional returns an input that a file may lack: nil then.
func (f *File) Optional(name string) []float32 {
	f.t.Helper()
	if !f.Has(name) {
		return nil
	}
	return f.Float32(name)
}
