package layers

import (
	"math"
	"math/rand/v2"
	"runtime"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/mat"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// near tells whether two numbers agree to a share of the larger one, or of 1.
func near(a, b, share float64) bool {
	return math.Abs(a-b) <= share*max(1, math.Abs(a), math.Abs(b))
}

// source makes weights that differ from each other.
type source struct{ *rand.Rand }

func newSource(seed uint64) source { return source{rand.New(rand.NewPCG(seed, 1))} }

func (s source) matrix(rows, cols int) blas32.General {
	m := mat.New(rows, cols)
	for i := range m.Data {
		m.Data[i] = float32(s.NormFloat64())
	}
	return m
}

func (s source) vector(n int) []float32 { return s.matrix(1, n).Data }

// allocated returns the bytes that f allocates.
func allocated(f func()) int64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc)
}
