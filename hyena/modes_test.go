package hyena

import (
	"math"
	"testing"

	"github.com/subquad/subquad/internal/mat"
)

// TestModesVanish: kernels are the same to the bit where modes have long decayed, which are
// left out there, and where others grow out of what is denormal.
func TestModesVanish(t *testing.T) {
	const n = 3
	w := ModesWeights{Poles: mat.Of([]float32{0.5, 0.1, -0.9, 0.2, 1.1, 0}, 1, 2*n), Residues: mat.Of([]float32{1, 2, -3, 1, 1e-37, 0}, 1, 2*n)}
	m, err := NewModes(w)
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range []int{0, 700, 3000} {
		got := mat.New(900, 1)
		if err := m.Kernel(got, from); err != nil {
			t.Fatal(err)
		}
		for i, x := range got.Data {
			sum := 0.0
			for j := range n {
				p := complex(float64(w.Poles.Data[2*j]), float64(w.Poles.Data[2*j+1]))
				sum += real(complex(float64(w.Residues.Data[2*j]), float64(w.Residues.Data[2*j+1])) * power(p, from+i))
			}
			if want := float32(sum); math.Abs(float64(x-want)) > 1e-6*math.Abs(sum) && x != want {
				t.Fatalf("row %d is %v, want %v", from+i, x, want)
			}
		}
	}
}
