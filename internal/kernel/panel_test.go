package kernel

import (
	"fmt"
	"math"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
)

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
	mustPanic(t, "kernel: Matrix.Panel: panel 1 of 0, format float32", func() { new(Matrix).Panel(1) })
	mustPanic(t, "kernel: Matrix.Reshape: -1 x 3", func() { m.Reshape(-1, 3) })
	mustPanic(t, "kernel: Matrix.Reshape: 3 x -1", func() { m.Reshape(3, -1) })
	mustPanic(t, "kernel: Matrix.PanelRows: rows 3 to 2 of 4", func() { m.PanelRows(0, 3, 2) })
	mustPanic(t, "kernel: Matrix.PanelRows: rows 0 to 5 of 4", func() { m.PanelRows(0, 0, 5) })
	mustPanic(t, "kernel: Matrix.Panel: panel 0 of 1, format int8", func() { NewMatrix(Int8, matrix(1, 3, 1, 0)).Panel(0) })
}

// TestColumns: a product with some columns has the bits of those columns of the whole
// product, in every format and for every number of rows that a kernel is made for.
func TestColumns(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		w := PanelCols()
		for _, format := range []Format{Float32, BFloat16, Int8, Float16} {
			k, n := 37, 9*w+w/2+1
			b := NewMatrix(format, matrix(1, k, n, 0))
			for _, m := range []int{1, 2, 3, 4, 31} {
				a, bias, want := matrix(2, m, k, 0), random(3, n), blank(m, n, 0)
				Gemm(want, a, b, bias)
				for _, c := range [][2]int{{0, w}, {w, 5 * w}, {4 * w, n}, {9 * w, n}, {2 * w, 2 * w}, {0, n}} {
					part, got := b.Columns(c[0], c[1]), blank(m, c[1]-c[0], 3)
					Gemm(got, a, &part, bias[c[0]:c[1]])
					for i := range m {
						for j := range got.Cols {
							if x, y := got.Data[i*got.Stride+j], want.Data[i*n+c[0]+j]; x != y {
								t.Fatalf("%v, %d rows, columns %v: (%d, %d) is %v, of all %v", format, m, c, i, j, x, y)
							}
						}
					}
					if part.cols > 0 && part.At(k-1, part.cols-1) != b.At(k-1, c[1]-1) {
						t.Errorf("%v, columns %v: the last element is another", format, c)
					}
				}
			}
		}
		m := NewMatrix(Float32, matrix(1, 3, 3*w, 0))
		mustPanic(t, fmt.Sprintf("kernel: Matrix.Columns: 1 to 2 of %d, in panels of %d", 3*w, w), func() { m.Columns(1, 2) })
		mustPanic(t, fmt.Sprintf("kernel: Matrix.Columns: 0 to %d of %d, in panels of %d", 4*w, 3*w, w), func() { m.Columns(0, 4*w) })
	})
}

// TestCopyPanel packs matrices that end where memory does.
func TestCopyPanel(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, rows := range []int{1, 15, 16, 17, 300, 600} {
			for _, low := range []bool{false, true} {
				b := guardedMatrix(t, 1, rows, 2*PanelCols(), low)
				m := NewMatrix(Float32, b)
				for i := range rows {
					for j, want := range b.Data[i*b.Stride:][:b.Cols] {
						if got := m.At(i, j); got != want {
							t.Fatalf("%d rows: element (%d, %d) is %v, want %v", rows, i, j, got, want)
						}
					}
				}
			}
		}
	})
}
