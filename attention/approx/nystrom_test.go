package approx

import (
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/mat"
)

// TestNystromError measures the approximation against exact attention where
// queries and keys change slowly and where they are noise. The documentation has
// what it prints.
func TestNystromError(t *testing.T) {
	const heads, d = 2, 32
	n, marks := 2048, []int{16, 64, 256, 2048}
	if testing.Short() {
		n, marks = 512, []int{16, 64}
	}
	exact := value[*attention.Attention](t)(attention.New(attention.Config{Heads: heads, HeadDim: d}))
	slow := func(seed uint64) blas32.General { return smooth(seed, n, heads*d) }
	noise := func(seed uint64) blas32.General { return normal(seed, n, heads*d) }
	for _, data := range []struct {
		name       string
		make       func(seed uint64) blas32.General
		iterations int
		most       map[int]float64
	}{
		{"smooth", slow, 6, map[int]float64{16: 0.05, 64: 0.02, 256: 0.02, 2048: 1e-5}},
		{"smooth", slow, 16, map[int]float64{16: 0.1, 64: 2e-4, 256: 1e-4, 2048: 1e-5}},
		{"noise", noise, 6, map[int]float64{16: 1, 64: 1, 256: 1, 2048: 1e-5}},
	} {
		q, k, v := data.make(1), data.make(2), data.make(3)
		want, got := mat.New(n, heads*d), mat.New(n, heads*d)
		if err := exact.Forward(want, q, k, v); err != nil {
			t.Fatal(err)
		}
		for _, m := range marks {
			ny := value[*Nystrom](t)(NewNystrom(NystromConfig{Heads: heads, HeadDim: d, Landmarks: m, Iterations: data.iterations}))
			if err := ny.Forward(got, q, k, v); err != nil {
				t.Fatal(err)
			}
			mean := meanError(got, want, heads)
			t.Logf("%s, %d landmarks, %d iterations: %.2g", data.name, m, data.iterations, mean)
			if !(mean <= data.most[m]) {
				t.Errorf("%s, %d landmarks: %v, want at most %v", data.name, m, mean, data.most[m])
			}
		}
	}
}
