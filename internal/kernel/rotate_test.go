package kernel

import (
	"testing"

	"github.com/subquad/subquad/internal/isa/isatest"
)

// TestRotateInterleaved compares with the definition, against unmapped memory.
func TestRotateInterleaved(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, low := range []bool{false, true} {
			for pairs := 1; pairs < 70; pairs++ {
				const heads, rest = 3, 2
				headDim := 2*pairs + rest
				x, dst := guarded(t, heads*headDim, low), guarded(t, heads*headDim, low)
				cos, sin := guarded(t, 2*pairs, low), guarded(t, 2*pairs, low)
				copy(x, random(1, len(x)))
				for i := range pairs {
					c, s := random(2, 2*pairs)[i], random(3, 2*pairs)[i]
					cos[2*i], cos[2*i+1], sin[2*i], sin[2*i+1] = c, c, -s, s
				}
				want := make([]float64, len(x))
				for h := 0; h < len(x); h += headDim {
					for i := 0; i < 2*pairs; i += 2 {
						a, b, c, s := float64(x[h+i]), float64(x[h+i+1]), float64(cos[i]), float64(sin[i+1])
						want[h+i], want[h+i+1] = a*c-b*s, b*c+a*s
					}
				}
				RotateInterleaved(dst, x, headDim, cos, sin)
				near(t, "rotation", dst, want, 2e-6)
				RotateInterleaved(x, x, headDim, cos, sin)
				for i, v := range x {
					if i%headDim < 2*pairs && v != dst[i] {
						t.Fatalf("in place: element %d is %v, want %v", i, v, dst[i])
					}
				}
			}
		}
	})
}

func TestRotatePanics(t *testing.T) {
	x, c := make([]float32, 12), make([]float32, 4)
	mustPanic(t, "kernel: RotateInterleaved: cos has 3 elements, want an even number", func() { RotateInterleaved(x, x, 4, c[:3], c[:3]) })
	mustPanic(t, "kernel: RotateInterleaved: sin has 3 elements, want 4", func() { RotateInterleaved(x, x, 4, c, c[:3]) })
}
