package golden

import (
	"strconv"
	"strings"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/mat"
)

// Matrix returns a tensor [rows, cols].
func (f *File) Matrix(name string) blas32.General {
	f.t.Helper()
	s := f.Shape(name)
	return mat.Of(f.Float32(name), s[0], s[1])
}

// Heads returns a tensor [rows, heads, dim] as a matrix, heads side by side.
func (f *File) Heads(name string) (m blas32.General, heads int) {
	f.t.Helper()
	s := f.Shape(name)
	return mat.Of(f.Float32(name), s[0], s[1]*s[2]), s[1]
}

// Number returns a metadata number, or none where there is none.
func (f *File) Number(key string, none float64) float64 {
	f.t.Helper()
	text := f.Meta(key)
	if text == "" || text == "None" {
		return none
	}
	x, err := strconv.ParseFloat(text, 64)
	if err != nil {
		f.t.Fatalf("metadata %s is %q", key, text)
	}
	return x
}

// Scale returns the scale of a softmax, 0 for 1/sqrt(D).
func (f *File) Scale() float32 {
	f.t.Helper()
	if text := f.Meta("scale"); text == "" || strings.HasPrefix(text, "1/sqrt") {
		return 0
	}
	return float32(f.Number("scale", 0))
}
