package kernel

import (
	"fmt"
	"math"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
)

// scan64 is the recurrence in float64; it returns y and h.
func scan64(dt, x blas32.General, da, h []float32, b, c blas32.General, vectors bool) (ys, hs []float64) {
	states, a := len(h)/ScanBlock, da[ScanBlock:]
	for _, v := range h {
		hs = append(hs, float64(v))
	}
	for t := range dt.Rows {
		for j := range ScanBlock {
			step, v := float64(dt.Data[t*dt.Stride+j]), float64(x.Data[t*x.Stride+j])
			sum := float64(da[j]) * v
			for n := range states {
				at := n*ScanBlock + j
				i := n
				if vectors {
					i = at
				}
				hs[at] = math.Exp2(step*float64(a[at]))*hs[at] + step*v*float64(b.Data[t*b.Stride+i])
				sum += float64(c.Data[t*c.Stride+i]) * hs[at]
			}
			ys = append(ys, sum)
		}
	}
	return ys, hs
}

// guardedMatrix returns a random matrix between unmapped pages.
func guardedMatrix(t *testing.T, seed uint64, rows, cols int, low bool) blas32.General {
	data := guarded(t, rows*cols, low)
	copy(data, random(seed, len(data)))
	return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: data}
}

func TestSelectiveScan(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, tokens := range []int{0, 1, 2, 63, 300} {
			for _, states := range []int{0, 4, 8, 12, 16, 20, 64} {
				for _, vectors := range []bool{false, true} {
					for _, low := range []bool{false, true} {
						if testing.Short() && low != ((tokens+states/4)%2 == 0) {
							continue
						}
						what := fmt.Sprintf("%d tokens, %d states, vectors %v", tokens, states, vectors)
						width := states
						if vectors {
							width *= ScanBlock
						}
						y, dt, x := guardedMatrix(t, 1, tokens, ScanBlock, low), guardedMatrix(t, 2, tokens, ScanBlock, low), guardedMatrix(t, 3, tokens, ScanBlock, low)
						da, h := guardedMatrix(t, 4, 1+states, ScanBlock, low).Data, guardedMatrix(t, 5, states, ScanBlock, low).Data
						b, c := guardedMatrix(t, 6, tokens, width, low), guardedMatrix(t, 7, tokens, width, low)
						for i := range dt.Data {
							dt.Data[i] = float32(math.Abs(float64(dt.Data[i])))
						}
						for i, v := range da[ScanBlock:] {
							da[ScanBlock+i] = -float32(math.Abs(float64(v))) * 5
						}
						for i := range y.Data { // the old elements are not read
							y.Data[i] = nan
						}
						if vectors && tokens > 0 { // the same for all tokens
							c.Stride, c.Data = 0, c.Data[:width]
						}
						ys, hs := scan64(dt, x, da, h, b, c, vectors)
						SelectiveScan(y, dt, x, da, h, b, c)
						near(t, what, y.Data, ys, 1e-4)
						near(t, what, h, hs, 1e-4)
					}
				}
			}
		}
	})
}

// TestSelectiveScanDecay checks the error of the scan's decays, and their
// limits: never subnormal, +Inf from 2^128 on.
func TestSelectiveScanDecay(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const states = 4
		decay := func(x []float32) []float32 {
			one := blas32.General{Rows: 1, Cols: ScanBlock, Stride: ScanBlock}
			matrix := func(v float32) blas32.General {
				m := one
				for range ScanBlock {
					m.Data = append(m.Data, v)
				}
				return m
			}
			da, h := make([]float32, (1+states)*ScanBlock), make([]float32, states*ScanBlock)
			copy(da[ScanBlock:], x)
			copy(h, matrix(1).Data)
			zero := blas32.General{Rows: 1, Cols: states, Stride: states, Data: make([]float32, states)}
			SelectiveScan(matrix(0), matrix(1), matrix(0), da, h, zero, zero)
			return h[:ScanBlock]
		}
		x := make([]float32, ScanBlock)
		for i := range 4000 {
			for j := range x {
				x[j] = -float32(i*ScanBlock+j) / 64000 * 126
			}
			for j, got := range decay(x) {
				if d := ulp(got, math.Exp2(float64(x[j]))); !(d < 2.5) {
					t.Fatalf("2^%v is %v: %v ULP", x[j], got, d)
				}
			}
		}
		minusInf := float32(math.Inf(-1))
		copy(x, []float32{0, -126, -127, -1e30, minusInf, 1, 127, 127.9999, 128, 1e30, inf, nan})
		want := []float32{1, 0x1p-126, 0x1p-126, 0x1p-126, 0x1p-126, 2, 0x1p127, float32(math.Exp2(float64(float32(127.9999)))), inf, inf, inf, nan}
		for i, got := range decay(x)[:len(want)] {
			if d := ulp(got, float64(want[i])); !(d < 2.5) {
				t.Errorf("2^%v is %v, want %v", x[i], got, want[i])
			}
		}
	})
}

func TestScanPanics(t *testing.T) {
	y, h := matrix(1, 2, ScanBlock, 0), make([]float32, 4*ScanBlock)
	bc := matrix(2, 2, 4, 0)
	mustPanic(t, "kernel: SelectiveScan: h has 80 elements, want a multiple of 4*ScanBlock", func() { SelectiveScan(y, y, y, h, make([]float32, 5*ScanBlock), bc, bc) })
	mustPanic(t, "kernel: SelectiveScan: b is 2 x 4, want 2 x 128", func() { SelectiveScan(y, y, y, make([]float32, 9*ScanBlock), make([]float32, 8*ScanBlock), bc, bc) })
	mustPanic(t, "kernel: SelectiveScan: da has 64 elements, want 80", func() { SelectiveScan(y, y, y, h, h, bc, bc) })
}
