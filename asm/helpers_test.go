package asm

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"
)

var (
	inf = float32(math.Inf(1))
	nan = float32(math.NaN())
)

func random(seed uint64, n int) []float32 {
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

// matrix returns a random rows x cols matrix whose rows are gap elements apart,
// NaN in between: an access there spoils the result.
func matrix(seed uint64, rows, cols, gap int) blas32.General {
	m := blas32.General{Rows: rows, Cols: cols, Stride: cols + gap, Data: random(seed, rows*(cols+gap))}
	for i := range m.Data {
		if i%m.Stride >= cols {
			m.Data[i] = nan
		}
	}
	return m
}

func blank(rows, cols, gap int) blas32.General {
	m := matrix(0, rows, cols, gap)
	for i := range m.Data {
		m.Data[i] = nan
	}
	return m
}

// gapsIntact fails the test if anything but NaN stands between the rows of m.
func gapsIntact(t *testing.T, m blas32.General) {
	t.Helper()
	for i, v := range m.Data {
		if i%m.Stride >= m.Cols && v == v {
			t.Fatalf("element %d, between the rows, was overwritten by %v", i, v)
		}
	}
}

// ulp returns the distance of got from want in units in the last place of want
// rounded to float32, or 0 if both are NaN, the same infinity, or zero.
func ulp(got float32, want float64) float64 {
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

// near fails the test unless |got - want| <= tol, for each element.
func near(t *testing.T, what string, got []float32, want []float64, tol float64) {
	t.Helper()
	for i, g := range got {
		if !(math.Abs(float64(g)-want[i]) <= tol) {
			t.Fatalf("%s: element %d is %v, want %v within %.2g", what, i, g, want[i], tol)
		}
	}
}

func sameBits(a, b []float32) error {
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

// mustPanic fails the test unless f panics with text that contains want.
func mustPanic(t *testing.T, want string, f func()) {
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
