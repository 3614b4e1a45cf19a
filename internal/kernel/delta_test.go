package kernel

import (
	"fmt"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
)

func TestDeltaStep(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, width := range []int{0, 1, 3, 4, 7, 8, 12, 16, 21, 31, 32} {
			for _, states := range []int{0, 1, 2, 5, 128} {
				for _, low := range []bool{false, true} {
					for _, pair := range []bool{false, true} {
						row := func(seed uint64, n int) []float32 { return guardedMatrix(t, seed, 1, n, low).Data }
						s := guardedMatrix(t, 1, states, width, low)
						d := DeltaStep{Read: row(2, states), Ask: row(3, states), Decay: row(4, states), K: row(5, states), V: row(7, width), Beta: 1.25, KQ: -0.5, BQ: 0.75}
						if pair {
							d.B = row(6, states)
						}
						y := row(8, width)
						r, u, want := make([]float64, width), make([]float64, width), make([]float64, width)
						for i := range states {
							for j := range width {
								x := float64(s.Data[i*width+j])
								r[j] += float64(d.Read[i]) * x
								want[j] += float64(d.Ask[i]) * x
							}
						}
						for j := range width {
							u[j] = float64(d.Beta) * (float64(d.V[j]) - r[j])
							if pair {
								u[j] = float64(d.V[j])
								want[j] += float64(d.BQ) * r[j]
							}
							want[j] += float64(d.KQ) * u[j]
						}
						state := make([]float64, len(s.Data))
						for i := range states {
							for j := range width {
								v := float64(d.Decay[i])*float64(s.Data[i*width+j]) + float64(d.K[i])*u[j]
								if pair {
									v += float64(d.B[i]) * r[j]
								}
								state[i*width+j] = v
							}
						}
						alias := append([]float32{}, d.V...)
						d.Run(y, s)
						what := fmt.Sprintf("%d x %d, pair %v", states, width, pair)
						near(t, what, y, want, 1e-4)
						near(t, what, s.Data, state, 1e-4)
						copy(d.V, alias)
					}
				}
			}
		}
	})
}

func TestDeltaStepPanics(t *testing.T) {
	s, x := matrix(1, 2, 33, 0), make([]float32, 99)
	mustPanic(t, "kernel: DeltaStep: 33 columns, want at most 32", func() {
		(&DeltaStep{Read: x[:2], Ask: x[:2], Decay: x[:2], K: x[:2], V: x[:33]}).Run(x[33:66], s)
	})
	mustPanic(t, "kernel: DeltaStep: y overlaps s", func() {
		(&DeltaStep{Read: x[:2], Ask: x[:2], Decay: x[:2], K: x[:2], V: x[:2]}).Run(s.Data[:2], blas32.General{Rows: 2, Cols: 2, Stride: 2, Data: s.Data})
	})
}
