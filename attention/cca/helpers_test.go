package cca

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/mat/mattest"
)

var (
	matrix     = mattest.Matrix
	close64    = mattest.Close
	sameBits   = mattest.SameBits
	near       = mattest.Near
	part       = mat.Rows
	row        = mat.Row
	zeroMatrix = mat.New
)

func general(data []float32, rows, cols int) blas32.General { return mat.Of(data, rows, cols) }

// must returns exact attention.
func must(t testing.TB, cfg attention.Config) *attention.Attention {
	t.Helper()
	a, err := attention.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// flat is a call with its options in one.
type flat struct {
	Dst, Q, K, V          blas32.General
	Offsets               []int
	State                 *State
	LSE                   blas32.General
	CoreK, CoreV, Weights blas32.General
	Blocks                []Block
}

func (f *flat) run(ctx context.Context, c *CCA) error {
	call := &attention.Call{Dst: f.Dst, Q: f.Q, K: []blas32.General{f.K}, V: []blas32.General{f.V}, Offsets: f.Offsets, LSE: f.LSE}
	if f.State != nil {
		call.State = f.State
	}
	call.Options = &Options{CoreK: f.CoreK, CoreV: f.CoreV, Weights: f.Weights, Blocks: f.Blocks}
	return c.Run(ctx, call)
}

// randomCuts cuts n tokens into parts, some of them empty.
func randomCuts(r *rand.Rand, n, parts int) []int {
	cuts := make([]int, parts+1)
	for i := range parts {
		cuts[i+1] = n
		if i < parts-1 {
			cuts[i+1] = cuts[i] + r.IntN(n-cuts[i]+1)
		}
	}
	return cuts
}

// relative is |got - want| / |want|.
func relative(got, want []float32) float64 {
	diff, norm := 0.0, 0.0
	for i, g := range got {
		d, w := float64(g)-float64(want[i]), float64(want[i])
		diff += d * d
		norm += w * w
	}
	if diff == 0 {
		return 0
	}
	return math.Sqrt(diff / norm)
}
