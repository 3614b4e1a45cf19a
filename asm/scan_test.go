package asm

import (
	"fmt"
	"math"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
)

// guardedMatrix is a random rows x cols matrix that ends where memory does.
func guardedMatrix(t *testing.T, seed uint64, rows, cols int) blas32.General {
	m := blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: guarded(t, rows*cols, false)}
	copy(m.Data, random(seed, rows*cols))
	return m
}

// TestSelectiveScan compares with the recurrence in float64: states and tokens
// across the edges of a kernel, B and C shared by the channels, their own, and
// constant.
func TestSelectiveScan(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, tokens := range []int{0, 1, 2, 63, 300} {
			for _, states := range []int{4, 8, 12, 16, 20, 36} {
				for _, form := range []string{"shared", "own", "constant"} {
					name := fmt.Sprintf("%d tokens, %d states, %s", tokens, states, form)
					y, dt, u := guardedMatrix(t, 1, tokens, ScanBlock), guardedMatrix(t, 2, tokens, ScanBlock), guardedMatrix(t, 3, tokens, ScanBlock)
					for i, v := range dt.Data {
						dt.Data[i] = float32(math.Abs(float64(v)))
					}
					a, h := guardedMatrix(t, 4, states, ScanBlock).Data, guardedMatrix(t, 5, states, ScanBlock).Data
					for i, v := range a {
						a[i] = -float32(math.Abs(float64(v)))
					}
					cols, rows := states, tokens
					if form != "shared" {
						cols *= ScanBlock
					}
					if form == "constant" {
						rows = 1
					}
					b, c := guardedMatrix(t, 6, rows, cols), guardedMatrix(t, 7, rows, cols)
					if form == "constant" {
						b.Rows, c.Rows, b.Stride, c.Stride = tokens, tokens, 0, 0
					}
					state, want := make([]float64, len(h)), make([]float64, len(y.Data))
					for i, v := range h {
						state[i] = float64(v)
					}
					at := func(m blas32.General, t, n, j int) float64 {
						if form == "shared" {
							return float64(m.Data[t*m.Stride+n])
						}
						return float64(m.Data[t*m.Stride+n*ScanBlock+j])
					}
					for t := range tokens {
						for j := range ScanBlock {
							sum := float64(y.Data[t*ScanBlock+j])
							for n := range states {
								s := &state[n*ScanBlock+j]
								*s = math.Exp2(float64(dt.Data[t*ScanBlock+j])*float64(a[n*ScanBlock+j]))**s + float64(u.Data[t*ScanBlock+j])*at(b, t, n, j)
								sum += *s * at(c, t, n, j)
							}
							want[t*ScanBlock+j] = sum
						}
					}
					SelectiveScan(y, dt, u, a, h, b, c)
					near(t, name+": y", y.Data, want, 2e-5*math.Sqrt(float64(states)))
					near(t, name+": h", h, state, 2e-5)
				}
			}
		}
	})
}

func TestOuterStep(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, states := range []int{0, 1, 3, 16, 128} {
			for _, width := range []int{0, 1, 7, 16, 33, 600} {
				s, b, c := guardedMatrix(t, 1, states, width), guardedMatrix(t, 2, 1, states).Data, guardedMatrix(t, 3, 1, states).Data
				x, y := guardedMatrix(t, 4, 1, width).Data, guardedMatrix(t, 5, 1, width).Data
				wantS, wantY := make([]float64, states*width), make([]float64, width)
				for i := range states {
					for j := range width {
						v := 0.9*float64(s.Data[i*width+j]) + float64(b[i])*float64(x[j])
						wantS[i*width+j] = v
						wantY[j] += float64(c[i]) * v
					}
				}
				OuterStep(y, s, 0.9, b, c, x)
				name := fmt.Sprintf("%d states, %d channels", states, width)
				near(t, name+": s", s.Data, wantS, 1e-5)
				near(t, name+": y", y, wantY, 1e-5*math.Sqrt(float64(states+1)))
			}
		}
	})
}

func TestDecayRowAndFlush(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for n := range 70 {
			a, x, dst := guardedMatrix(t, 1, 1, n).Data, guardedMatrix(t, 2, 1, n).Data, guardedMatrix(t, 3, 1, n).Data
			want := make([]float64, n)
			for i := range n {
				want[i] = float64(a[i]) * math.Exp(float64(-1-x[i]))
			}
			DecayRow(dst, a, x, -1)
			near(t, fmt.Sprint("DecayRow of ", n), dst, want, 1e-5)

			exact := make([]float32, n)
			for i := range x {
				x[i] = float32(math.Ldexp(float64(i%3-1), -90-i))
				if math.Abs(float64(x[i])) >= 0x1p-103 {
					exact[i] = x[i]
				}
			}
			if n > 2 {
				x[1], exact[1] = nan, nan
				x[2], exact[2] = -inf, -inf
			}
			Flush(x)
			if err := sameBits(x, exact); err != nil {
				t.Fatalf("Flush of %d: %v", n, err)
			}
		}
	})
}
