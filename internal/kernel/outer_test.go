package kernel

import (
	"errors"
	"fmt"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
)

func TestOuterStep(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, width := range []int{0, 1, 3, 4, 7, 8, 16, 21, 64, 65, 600} {
			for _, states := range []int{0, 1, 5, 128} {
				for _, low := range []bool{false, true} {
					s, b, c := guardedMatrix(t, 1, states, width, low), guardedMatrix(t, 2, 1, states, low).Data, guardedMatrix(t, 3, 1, states, low).Data
					x, y := guardedMatrix(t, 4, 1, width, low).Data, guardedMatrix(t, 5, 1, width, low).Data
					const decay = 0.75
					want, state := make([]float64, width), make([]float64, len(s.Data))
					for i := range states {
						for j := range width {
							v := decay*float64(s.Data[i*width+j]) + float64(b[i])*float64(x[j])
							state[i*width+j] = v
							want[j] += float64(c[i]) * v
						}
					}
					OuterStep(y, s, decay, b, c, x)
					what := fmt.Sprintf("%d x %d", states, width)
					near(t, what, y, want, 1e-4)
					near(t, what, s.Data, state, 1e-5)
					// Nothing decays and nothing is written.
					read := make([]float32, width)
					Combine(y, s, c)
					copy(read, y)
					clear(x)
					OuterStep(y, s, 1, b, c, x)
					if err := sameBits(read, y); err != nil {
						t.Fatalf("Combine, %s: %v", what, err)
					}
				}
			}
		}
	})
}

func TestAccumulate(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, width := range []int{0, 1, 3, 4, 7, 8, 16, 21, 64, 65, 300} {
			for _, states := range []int{0, 1, 3, 4, 6, 8, 128} {
				for _, tokens := range []int{0, 1, 5, 70} {
					low := width%2 == 0
					s, x, y := guardedMatrix(t, 1, states, width, low), guardedMatrix(t, 2, tokens, width, low), guardedMatrix(t, 3, tokens, width, low)
					b, c := guardedMatrix(t, 4, tokens, states, low), guardedMatrix(t, 5, tokens, states, low)
					bc := guarded(t, 2*tokens*states, low)
					PackBC(bc, b, c)
					var want, state []float64
					for _, v := range s.Data {
						state = append(state, float64(v))
					}
					for t := range tokens {
						for j := range width {
							var sum float64
							for i := range states {
								state[i*width+j] += float64(b.Data[t*states+i]) * float64(x.Data[t*width+j])
								sum += float64(c.Data[t*states+i]) * state[i*width+j]
							}
							want = append(want, sum)
						}
					}
					for i := range y.Data { // the old elements are not read
						y.Data[i] = nan
					}
					again, scale := append([]float32(nil), s.Data...), guarded(t, tokens, low)
					copy(scale, random(6, tokens))
					Accumulate(y, s, bc, x)
					scaled, first := guardedMatrix(t, 3, tokens, width, low), s
					first.Data = again
					AccumulateScaled(scaled, first, bc, x, scale)
					product := append([]float32(nil), y.Data...)
					ScaleRows(blas32.General{Rows: tokens, Cols: width, Stride: width, Data: product}, scale, y)
					if err := errors.Join(sameBits(scaled.Data, product), sameBits(again, s.Data)); err != nil {
						t.Fatal(err)
					}
					what := fmt.Sprintf("%d tokens, %d x %d", tokens, states, width)
					near(t, what, y.Data, want, 1e-3)
					near(t, what, s.Data, state, 1e-4)
				}
			}
		}
	})
}

func TestOuterPanics(t *testing.T) {
	h, bc := make([]float32, 4*ScanBlock), matrix(2, 2, 4, 0)
	mustPanic(t, "kernel: OuterStep: y or s overlaps an input", func() { OuterStep(h[:4], bc, 1, h[8:10], h[8:10], h[:4]) })
	mustPanic(t, "kernel: Combine: y overlaps an input", func() { Combine(h[:4], bc, h[:2]) })
	mustPanic(t, "kernel: Combine: s is 2 x 4, want 3 x 4", func() { Combine(h[:4], bc, h[8:11]) })
}
