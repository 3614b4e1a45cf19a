// Package mattest makes matrices for tests and compares them.
package mattest

import (
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/mat"
)

// Random returns n numbers from N(0, 1), the same ones for the same seed and n.
func Random(seed uint64, n int) []float32 {
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

// Matrix returns a matrix of such numbers.
func Matrix(seed uint64, rows, cols int) blas32.General {
	return mat.Of(Random(seed, rows*cols), rows, cols)
}

// Close fails the test unless all numbers are within tol (1 + |want|).
func Close(t testing.TB, what string, got, want []float32, tol float64) {
	t.Helper()
	sameLength(t, what, got, want)
	for i, w := range want {
		if g := float64(got[i]); !(math.Abs(g-float64(w)) <= tol*(1+math.Abs(float64(w))) || g == float64(w)) {
			t.Fatalf("%s: element %d is %v, want %v", what, i, got[i], w)
		}
	}
}

// SameBits fails the test unless the numbers that were got have the bits of those that
// are wanted.
func SameBits(t testing.TB, what string, got, want []float32) {
	t.Helper()
	sameLength(t, what, got, want)
	for i, g := range got {
		if math.Float32bits(g) != math.Float32bits(want[i]) {
			t.Fatalf("%s: element %d is %v, want %v", what, i, g, want[i])
		}
	}
}

// Same fails the test unless the numbers that were got are those that are wanted, and none
// of them NaN. Zeros of both signs are the same.
func Same(t testing.TB, what string, got, want []float32) {
	t.Helper()
	sameLength(t, what, got, want)
	for i, g := range got {
		if g != want[i] {
			t.Fatalf("%s: element %d is %v, want %v", what, i, g, want[i])
		}
	}
}

// NearLargest fails the test unless all numbers are within tol of the largest one wanted.
func NearLargest(t testing.TB, what string, got, want []float32, tol float64) {
	t.Helper()
	sameLength(t, what, got, want)
	largest := 1e-30
	for _, v := range want {
		largest = max(largest, math.Abs(float64(v)))
	}
	for i, w := range want {
		if d := math.Abs(float64(got[i]) - float64(w)); !(d <= tol*largest) {
			t.Fatalf("%s: element %d is %v, want %v (off by %.2g of the largest)", what, i, got[i], w, d/largest)
		}
	}
}

func sameLength(t testing.TB, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d elements, want %d", what, len(got), len(want))
	}
}

// Near fails the test unless all elements of a matrix are within tol (1 + |want|).
func Near(t *testing.T, what string, got blas32.General, want [][]float64, tol float64) {
	t.Helper()
	for i := range got.Rows {
		for j, x := range mat.Row(got, i) {
			g, w := float64(x), want[i][j]
			if !(math.Abs(g-w) <= tol*(1+math.Abs(w)) || g == w) {
				t.Fatalf("%s: (%d, %d) is %v, want %v", what, i, j, g, w)
			}
		}
	}
}

// Dot is the product of two vectors in float64.
func Dot(a, b []float32) (sum float64) {
	for i, x := range a {
		sum += float64(x) * float64(b[i])
	}
	return sum
}
