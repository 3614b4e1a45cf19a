package lm

import (
	"math"
	"slices"
	"testing"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// same fails the test unless got and want have the same numbers, none of them NaN.
func same(t testing.TB, what string, got, want []float32) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("%s: other bits, or NaN", what)
	}
}

// near fails the test unless got and want differ by at most tol of the largest value.
func near(t testing.TB, what string, got, want []float32, tol float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d elements, want %d", what, len(got), len(want))
	}
	largest := 1e-30
	for _, v := range want {
		largest = max(largest, math.Abs(float64(v)))
	}
	for i, v := range want {
		if d := math.Abs(float64(got[i]) - float64(v)); !(d <= tol*largest) {
			t.Fatalf("%s: element %d is %v, want %v", what, i, got[i], v)
		}
	}
}
