package catanet

import (
	"errors"
	"math"
	"testing"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
)

// TestCenters: fitting moves centres to clusters, and leaves one without tokens.
func TestCenters(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const n, dim = 60, 4
		x := mat.New(n, dim)
		for i := range n {
			mat.Row(x, i)[i%2] = 1 + float32(i)
			mat.Row(x, i)[2] = 0.01 * float32(i%3-1)
		}
		start := mat.Of([]float32{1, 0.3, 0, 0, 0.2, 1, 0, 0, 0, 0, 0, -7}, 3, dim)
		fitted := mat.New(3, dim)
		must(t, FitCenters(fitted, x, start, 5))
		for i, want := range [][]float32{{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 0, -1}} {
			for c, v := range mat.Row(fitted, i) {
				if math.Abs(float64(v-want[c])) > 0.01 {
					t.Errorf("centre %d is %v, want %v", i, mat.Row(fitted, i), want)
				}
			}
		}
		bucket := make([]int32, n)
		must(t, AssignCenters(bucket, x, fitted))
		for i, b := range bucket {
			if int(b) != i%2 {
				t.Fatalf("token %d is in bucket %d", i, b)
			}
		}
	})
	for _, err := range []error{
		AssignCenters(make([]int32, 3), mat.New(4, 2), mat.New(2, 2)),
		AssignCenters(make([]int32, 4), mat.New(4, 2), mat.New(2, 3)),
		AssignCenters(make([]int32, 4), mat.New(4, 2), mat.New(0, 2)),
		FitCenters(mat.New(2, 3), mat.New(4, 2), mat.New(2, 2), 1),
		MoveCenters(mat.New(2, 2), mat.New(3, 2), 0.5),
	} {
		if !errors.Is(err, ErrShape) {
			t.Errorf("error %v", err)
		}
	}
	if err := FitCenters(mat.New(2, 2), mat.New(4, 2), mat.New(2, 2), -1); !errors.Is(err, ErrCall) {
		t.Errorf("error %v", err)
	}
	if err := MoveCenters(mat.New(2, 2), mat.New(2, 2), 2); !errors.Is(err, ErrCall) {
		t.Errorf("error %v", err)
	}
}
