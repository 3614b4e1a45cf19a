package delta

import (
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/mat/mattest"
)

func value[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func zeros(rows, cols int) blas32.General { return mat.New(rows, cols) }

func random(r *rand.Rand, rows, cols int) blas32.General {
	m := zeros(rows, cols)
	for i := range m.Data {
		m.Data[i] = float32(r.NormFloat64())
	}
	return m
}

// near fails unless got is within tol of the largest value of want.
var near = mattest.NearLargest

var same = mattest.SameBits
