package kernel

import (
	"fmt"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
)

func TestDeltaSteps(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, width := range []int{0, 1, 3, 4, 7, 8, 12, 16, 21, 31, 32} {
			for _, states := range []int{0, 1, 2, 5, 128} {
				for _, tokens := range []int{0, 1, 3} {
					for _, pair := range []bool{false, true} {
						testDeltaSteps(t, width, states, tokens, pair, width%2 == 0)
					}
				}
			}
		}
	})
}

func testDeltaSteps(t *testing.T, width, states, tokens int, pair, low bool) {
	rows := func(seed uint64, n int) blas32.General { return guardedMatrix(t, seed, tokens, n, low) }
	s := guardedMatrix(t, 1, states, width, low)
	d := DeltaSteps{Read: rows(2, states), Ask: rows(3, states), Decay: rows(4, states), K: rows(5, states), V: rows(7, width), Beta: rows(9, 1).Data, KQ: rows(10, 1).Data, BQ: rows(11, 1).Data}
	for _, m := range []blas32.General{d.Read, d.Ask, d.K} { // states do not grow
		for i := range m.Data {
			m.Data[i] /= 16
		}
	}
	if pair {
		d.B = rows(6, states)
	}
	y := rows(8, width)
	state := make([]float64, 0, len(s.Data))
	for _, v := range s.Data {
		state = append(state, float64(v))
	}
	var outs []float64
	at := func(m blas32.General, t, i int) float64 { return float64(m.Data[t*m.Stride+i]) }
	for i := range tokens {
		r, u, want := make([]float64, width), make([]float64, width), make([]float64, width)
		for j := range width {
			for k := range states {
				r[j] += at(d.Read, i, k) * state[k*width+j]
				want[j] += at(d.Ask, i, k) * state[k*width+j]
			}
			u[j] = float64(d.Beta[i]) * (at(d.V, i, j) - r[j])
			if pair {
				u[j] = at(d.V, i, j)
				want[j] += float64(d.BQ[i]) * r[j]
			}
			want[j] += float64(d.KQ[i]) * u[j]
			for k := range states {
				v := at(d.Decay, i, k)*state[k*width+j] + at(d.K, i, k)*u[j]
				if pair {
					v += at(d.B, i, k) * r[j]
				}
				state[k*width+j] = v
			}
		}
		outs = append(outs, want...)
	}
	d.Run(y, s)
	what := fmt.Sprintf("%d tokens, %d x %d, pair %v", tokens, states, width, pair)
	near(t, what, y.Data, outs, 1e-4)
	near(t, what, s.Data, state, 1e-4)
}

func TestDeltaStepsPanics(t *testing.T) {
	s, x := matrix(1, 2, 33, 0), make([]float32, 99)
	of := func(rows, cols int, data []float32) blas32.General {
		return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: data[:rows*cols]}
	}
	two := of(1, 2, x)
	mustPanic(t, "kernel: DeltaSteps: 33 columns, want at most 32", func() {
		(&DeltaSteps{Read: two, Ask: two, Decay: two, K: two, V: of(1, 33, x), Beta: x[:1], KQ: x[:1]}).Run(of(1, 33, x[33:]), s)
	})
	mustPanic(t, "kernel: DeltaSteps: y overlaps s", func() {
		(&DeltaSteps{Read: two, Ask: two, Decay: two, K: two, V: two, Beta: x[:1], KQ: x[:1]}).Run(of(1, 2, s.Data), of(2, 2, s.Data))
	})
}
