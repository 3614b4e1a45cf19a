// Package kerneltest has what the tests of the kernels share: random operands with
// NaN between their rows, memory against unmapped pages, distances in ULP.
package kerneltest

import (
	"fmt"
	"math"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/mat/mattest"
)

// Inf and NaN are float32.
var (
	Inf = float32(math.Inf(1))
	NaN = float32(math.NaN())
)

// Random returns n normal deviates, the same for the same seed and n.
func Random(seed uint64, n int) []float32 { return mattest.Random(seed, n) }

// Matrix returns a random rows x cols matrix whose rows are gap elements apart,
// NaN in between: an access there spoils the result.
func Matrix(seed uint64, rows, cols, gap int) blas32.General {
	m := blas32.General{Rows: rows, Cols: cols, Stride: cols + gap, Data: Random(seed, rows*(cols+gap))}
	for i := range m.Data {
		if i%m.Stride >= cols {
			m.Data[i] = NaN
		}
	}
	return m
}

// Blank returns a matrix of nothing but NaN, its rows gap elements apart.
func Blank(rows, cols, gap int) blas32.General {
	m := Matrix(0, rows, cols, gap)
	for i := range m.Data {
		m.Data[i] = NaN
	}
	return m
}

// GapsIntact fails the test if anything but NaN stands between the rows of m.
func GapsIntact(t *testing.T, m blas32.General) {
	t.Helper()
	for i, v := range m.Data {
		if i%m.Stride >= m.Cols && v == v {
			t.Fatalf("element %d, between the rows, was overwritten by %v", i, v)
		}
	}
}

// ULP returns the distance of got from want in units in the last place of want
// rounded to float32, or 0 if both are NaN, the same infinity, or zero.
func ULP(got float32, want float64) float64 {
	w := float32(want)
	switch {
	case got == w || got != got && want != want:
		return 0
	case got != got || want != want || math.IsInf(float64(got), 0) || math.IsInf(float64(w), 0):
		return math.Inf(1)
	}
	size := math.Abs(float64(w))
	unit := math.Ldexp(1, max(math.Ilogb(size), -126)-23)
	return math.Abs(float64(got)-want) / unit
}

// Near fails the test unless |got - want| <= tol, for each element.
func Near(t *testing.T, what string, got []float32, want []float64, tol float64) {
	t.Helper()
	for i, g := range got {
		if !(math.Abs(float64(g)-want[i]) <= tol) {
			t.Fatalf("%s: element %d is %v, want %v within %.2g", what, i, g, want[i], tol)
		}
	}
}

// SameBits tells where two vectors differ; any NaN equals any other.
func SameBits(a, b []float32) error {
	if len(a) != len(b) {
		return fmt.Errorf("%d elements and %d", len(a), len(b))
	}
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) && (a[i] == a[i] || b[i] == b[i]) {
			return fmt.Errorf("element %d: %v and %v", i, a[i], b[i])
		}
	}
	return nil
}

// MustPanic fails the test unless f panics with text that contains want.
func MustPanic(t *testing.T, want string, f func()) {
	t.Helper()
	defer func() {
		t.Helper()
		got := fmt.Sprint(recover())
		if got != want {
			t.Errorf("panic %q, want %q", got, want)
		}
	}()
	f()
}

// Dense returns the elements of m without the gaps between its rows.
func Dense(m blas32.General) (out []float32) {
	for i := range m.Rows {
		out = append(out, m.Data[i*m.Stride:][:m.Cols]...)
	}
	return out
}

// Flushed is what the kernels make of results below the normal range.
func Flushed(y float64) float64 {
	if y < 0x1p-126 {
		return 0
	}
	return y
}

// NearFlush tells results so near the smallest normal number that rounding
// decides whether they are flushed.
func NearFlush(y float64) bool { return y != 0 && math.Abs(y) < 0x1.001p-126 }
