//go:build amd64 || arm64

package asm

import (
	"math"
	"testing"

	"github.com/viterin/vek/vek32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/kernel"
)

func init() {
	peers["Dot"] = func(x, y []float32) float32 { return vek32.Dot(x, y) }
	peers["Sum"] = func(x, _ []float32) float32 { return vek32.Sum(x) }
	peers["Max"] = func(x, _ []float32) float32 { return vek32.Max(x) }
}

// TestVek compares with the same functions of vek32, which nobody here wrote. It panics on
// empty input, so lengths begin with 1.
//
// What rounds at most once must be the same to the bit. Sums of float32 in any order are
// within n 2^-24 times the sum of the magnitudes, of n terms; two sums are within twice
// that of each other.
func TestVek(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		lengths := []int{1000, kernel.Chunk, kernel.Chunk + 1, 65536}
		for n := 1; n <= 130; n++ {
			lengths = append(lengths, n)
		}
		for _, n := range lengths {
			a, b, got, want := random(1, n), random(2, n), make([]float32, n), make([]float32, n)
			same := func(name string) {
				t.Helper()
				if err := sameBits(got, want); err != nil {
					t.Errorf("%s of %d: %v", name, n, err)
				}
			}
			Add(got, a, b)
			vek32.Add_Into(want, a, b)
			same("Add")
			Mul(got, a, b)
			vek32.Mul_Into(want, a, b)
			same("Mul")
			Scale(got, -1.7, a)
			vek32.MulNumber_Into(want, a, -1.7)
			same("Scale")
			Maximum(got, a, b)
			vek32.Maximum_Into(want, a, b)
			same("Maximum")
			if x, y := Max(a), vek32.Max(a); x != y {
				t.Errorf("Max of %d is %v, vek32 says %v", n, x, y)
			}

			near := func(name string, x, y float32, magnitude float64) {
				t.Helper()
				if d := math.Abs(float64(x) - float64(y)); !(d <= float64(2*n+8)*0x1p-24*magnitude) {
					t.Errorf("%s of %d is %v, vek32 says %v", name, n, x, y)
				}
			}
			var sum, dot, distance float64
			for i, v := range a {
				sum += math.Abs(float64(v))
				dot += math.Abs(float64(v) * float64(b[i]))
				distance += (float64(v) - float64(b[i])) * (float64(v) - float64(b[i]))
			}
			near("Sum", Sum(a), vek32.Sum(a), sum)
			near("Dot", Dot(a, b), vek32.Dot(a, b), dot)
			near("the square root of SquaredDistance", float32(math.Sqrt(float64(SquaredDistance(a, b)))), vek32.Distance(a, b), math.Sqrt(distance))
			near("Cosine", Cosine(a, b), vek32.CosineSimilarity(a, b), 1)
		}
	})
}
