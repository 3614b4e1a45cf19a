package lm

import (
	"testing"

	"github.com/subquad/subquad/internal/mat/mattest"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// same fails the test unless got and want have the same numbers, none of them NaN.
var same = mattest.Same

// near fails the test unless got and want differ by at most tol of the largest value.
var near = mattest.NearLargest
