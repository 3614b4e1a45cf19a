package kernel

import (
	"math"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
)

func TestScaleRows(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for n := range 70 {
			for _, low := range []bool{false, true} {
				m, out, scale := guardedMatrix(t, 4, 5, n, low), guardedMatrix(t, 5, 5, n, low), guardedMatrix(t, 6, 1, 5, low).Data
				var want []float64
				for i, v := range m.Data {
					want = append(want, float64(scale[i/n])*float64(v))
				}
				ScaleRows(out, scale, m)
				near(t, "ScaleRows", out.Data, want, 1e-6)
				ScaleRows(m, scale, m)
				if err := sameBits(m.Data, out.Data); err != nil {
					t.Fatal(err)
				}
			}
		}
		tall := matrix(1, 9000, 3, 2)
		ScaleRows(tall, random(2, 9000), tall)
		gapsIntact(t, blas32.General{Rows: 9000, Cols: 3, Stride: 5, Data: tall.Data})
	})
}

func TestFlush(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		minusInf := float32(math.Inf(-1))
		in := []float32{0, 1, -1, 0x1p-103, -0x1p-103, 0x1.fffffep-104, -0x1.fffffep-104, 1e-45, inf, minusInf, nan, 2}
		want := []float32{0, 1, -1, 0x1p-103, -0x1p-103, 0, 0, 0, inf, minusInf, nan, 2}
		for n := range 70 {
			x := guarded(t, n, n%2 == 0)
			var w []float32
			for i := range x {
				x[i] = in[i%len(in)]
				w = append(w, want[i%len(want)])
			}
			Flush(x)
			if err := sameBits(x, w); err != nil {
				t.Fatal(err)
			}
		}
	})
}
