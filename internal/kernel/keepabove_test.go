package kernel

import (
	"math"
	"testing"

	"github.com/subquad/subquad/internal/isa/isatest"
)

// TestKeepAbove compares with a comparison, for every kind of number.
func TestKeepAbove(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		nan, inf := float32(math.NaN()), float32(math.Inf(1))
		numbers := []float32{0, math.SmallestNonzeroFloat32, 1e-38, 0.5, math.Nextafter32(0.5, 1), 3, math.MaxFloat32, inf, nan, -nan, -1, -inf, 5, 6, 7, 8, 9, 0.25, 0.75}
		for _, threshold := range []float32{0, math.SmallestNonzeroFloat32, 0.5, math.MaxFloat32, nan} {
			got, thresholds := make([]float32, len(numbers)), make([]float32, len(numbers))
			for i := range thresholds {
				thresholds[i] = threshold
			}
			KeepAbove(got, numbers, thresholds)
			for i, v := range numbers {
				want := v
				if v <= threshold {
					want = 0
				}
				if math.Float32bits(got[i]) != math.Float32bits(want) {
					t.Errorf("%v above %v: %v", v, threshold, got[i])
				}
			}
		}
	})
}

// TestKeepAboveLengths runs every length across the parts of a kernel, against
// unmapped memory.
func TestKeepAboveLengths(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		lengths := []int{Chunk - 1, Chunk, Chunk + 1, 3*Chunk + 17}
		for n := range 200 {
			lengths = append(lengths, n)
		}
		for _, n := range lengths {
			for _, low := range []bool{false, true} {
				x, thresholds, dst := guarded(t, n, low), guarded(t, n, low), guarded(t, n, low)
				copy(x, random(1, n))
				copy(thresholds, random(2, n))
				KeepAbove(dst, x, thresholds)
				for i, v := range x {
					if v <= thresholds[i] {
						v = 0
					}
					if dst[i] != v {
						t.Fatalf("of %d: element %d is %v, want %v", n, i, dst[i], v)
					}
				}
			}
		}
	})
}
