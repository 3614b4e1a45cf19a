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
						for i := range y.Data { // what is there is not read
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

// TestSelectiveScanDecay holds the decays of the scan to their error, and to their
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

// TestPrefetch asks for memory up to an end.
func TestPrefetch(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		x := guarded(t, 40000, false)
		for _, n := range []int{0, 1, 16, 17, 40000} {
			Prefetch(x[len(x)-n:])
		}
	})
}

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

func TestAccumulate(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, width := range []int{0, 1, 3, 4, 7, 8, 16, 21, 64, 65, 300} {
			for _, states := range []int{0, 1, 3, 4, 6, 128} {
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
					for i := range y.Data { // what is there is not read
						y.Data[i] = nan
					}
					Accumulate(y, s, bc, x)
					what := fmt.Sprintf("%d tokens, %d x %d", tokens, states, width)
					near(t, what, y.Data, want, 1e-3)
					near(t, what, s.Data, state, 1e-4)
				}
			}
		}
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

// TestPanels multiplies by matrices computed where they stand.
func TestPanels(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, cols := range []int{1, 5, 32, 33, 70} {
			const rows, from, to = 9, 2, 7
			b := matrix(1, rows, cols, 0)
			var packed, here Matrix
			packed.Set(b)
			here.Reshape(rows, cols)
			a := matrix(2, 4, rows, 1)
			for p := 0; p*PanelCols() < cols; p++ {
				panel := here.Panel(p)
				for i := range rows {
					copy(panel.Data[i*panel.Stride:][:panel.Cols], b.Data[i*cols+p*PanelCols():])
				}
				part := here.PanelRows(p, from, to)
				left := blas32.General{Rows: 4, Cols: to - from, Stride: a.Stride, Data: a.Data[from:]}
				got, want := blank(4, panel.Cols, 0), blank(4, cols, 0)
				Gemm(got, left, &part, nil)
				Gemm(want, left, NewMatrix(Float32, blas32.General{Rows: to - from, Cols: cols, Stride: cols, Data: b.Data[from*cols:]}), nil)
				for i := range 4 {
					if err := sameBits(got.Data[i*panel.Cols:][:panel.Cols], want.Data[i*cols+p*PanelCols():][:panel.Cols]); err != nil {
						t.Fatal(err)
					}
				}
			}
			got, want := blank(4, cols, 0), blank(4, cols, 0)
			Gemm(got, a, &here, nil)
			Gemm(want, a, &packed, nil)
			if err := sameBits(got.Data, want.Data); err != nil {
				t.Fatal(err)
			}
			// GemmTAdd adds the product of the transpose.
			turned := matrix(3, rows, 4, 2)
			sum := append([]float32{}, want.Data...)
			GemmTAdd(want, turned, &packed)
			GemmT(got, turned, &packed, nil)
			for i, v := range got.Data {
				if d := math.Abs(float64(want.Data[i] - (sum[i] + v))); !(d < 1e-5) {
					t.Fatalf("GemmTAdd: element %d is %v, want %v", i, want.Data[i], sum[i]+v)
				}
			}
		}
	})
}

// TestReshapeClears checks that what is beyond the last column of a matrix made in old
// memory is 0: the kernels multiply it.
func TestReshapeClears(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		w := PanelCols()
		const rows = 7
		var m Matrix
		m.Set(blank(rows, 3*w, 0))
		m.Reshape(rows, w+1)
		last := m.float32()[rows*w:][:rows*w]
		for i, v := range last {
			if i%w > 0 && v != 0 {
				t.Fatalf("row %d, column %d of the last panel is %v", i/w, i%w, v)
			}
		}
		if w > 1 && len(m.float32()) != 2*rows*w {
			t.Errorf("%d elements, want %d", len(m.float32()), 2*rows*w)
		}
	})
}

func TestPanelPanics(t *testing.T) {
	m := new(Matrix)
	m.Reshape(4, 3)
	mustPanic(t, "kernel: Matrix.Reshape: -1 x 3", func() { m.Reshape(-1, 3) })
	mustPanic(t, "kernel: Matrix.PanelRows: rows 3 to 2 of 4", func() { m.PanelRows(0, 3, 2) })
	mustPanic(t, "kernel: Matrix.PanelRows: rows 0 to 5 of 4", func() { m.PanelRows(0, 0, 5) })
	mustPanic(t, "kernel: Matrix.Panel: panel 0 of 1, format int8", func() { NewMatrix(Int8, matrix(1, 3, 1, 0)).Panel(0) })
}

func TestScanPanics(t *testing.T) {
	y, h := matrix(1, 2, ScanBlock, 0), make([]float32, 4*ScanBlock)
	bc := matrix(2, 2, 4, 0)
	mustPanic(t, "kernel: SelectiveScan: h has 80 elements, want a multiple of 4*ScanBlock", func() { SelectiveScan(y, y, y, h, make([]float32, 5*ScanBlock), bc, bc) })
	mustPanic(t, "kernel: SelectiveScan: b is 2 x 4, want 2 x 128", func() { SelectiveScan(y, y, y, make([]float32, 9*ScanBlock), make([]float32, 8*ScanBlock), bc, bc) })
	mustPanic(t, "kernel: SelectiveScan: da has 64 elements, want 80", func() { SelectiveScan(y, y, y, h, h, bc, bc) })
	mustPanic(t, "kernel: OuterStep: y or s overlaps an input", func() { OuterStep(h[:4], bc, 1, h[8:10], h[8:10], h[:4]) })
	mustPanic(t, "kernel: Combine: y overlaps an input", func() { Combine(h[:4], bc, h[:2]) })
	mustPanic(t, "kernel: Combine: s is 2 x 4, want 3 x 4", func() { Combine(h[:4], bc, h[8:11]) })
	mustPanic(t, "kernel: Matrix.Panel: panel 1 of 0, format float32", func() { new(Matrix).Panel(1) })
}
