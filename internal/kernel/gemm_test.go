package kernel

import (
	"fmt"
	"math"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/kernel/scalar"
)

var formats = []Format{Float32, BFloat16, Int8, Float16}

// product64 is a b + bias in float64, b as the kernels see it.
func product64(a blas32.General, transA bool, b *Matrix, bias []float32) []float64 {
	k, n := b.Dims()
	rows := a.Rows
	if transA {
		rows = a.Cols
	}
	out := make([]float64, 0, rows*n)
	for i := range rows {
		for j := range n {
			var sum float64
			if bias != nil {
				sum = float64(bias[j])
			}
			for l := range k {
				var x float32
				if transA {
					x = a.Data[l*a.Stride+i]
				} else {
					x = a.Data[i*a.Stride+l]
				}
				sum += float64(x) * float64(b.At(l, j))
			}
			out = append(out, sum)
		}
	}
	return out
}

// newMatrixT returns the transpose of b packed.
func newMatrixT(format Format, b blas32.General) *Matrix {
	m := new(Matrix)
	m.PackT(format, b)
	return m
}

func transpose(m blas32.General, gap int) blas32.General {
	t := matrix(0, m.Cols, m.Rows, gap)
	for i := range m.Rows {
		for j := range m.Cols {
			t.Data[j*t.Stride+i] = m.Data[i*m.Stride+j]
		}
	}
	return t
}

// gemmShapes are m, n, k that cross every edge: of tiles (up to 12 x 32, four
// panels), of k blocks and of column blocks.
var testShapes = [][3]int{
	{1, 1, 1}, {1, 131, 70}, {2, 200, 33}, {3, 97, 129}, {5, 12, 4}, {7, 31, 5}, {12, 32, 16}, {13, 33, 17},
	{25, 65, 64}, {36, 96, 20}, {37, 700, 3}, {26, 40, 1100}, {4, 300, 600}, {1, 260, 513},
	{27, 160, 1024}, // rows of a whose cache lines compete
}

func TestGemm(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, format := range formats {
			for _, s := range testShapes {
				m, n, k := s[0], s[1], s[2]
				for i, gap := range []int{0, 5} {
					if testing.Short() && i != (m+n+k)%2 {
						continue
					}
					name := fmt.Sprintf("%v m=%d n=%d k=%d gap=%d", format, m, n, k, gap)
					a, b := matrix(1, m, k, gap), matrix(2, k, n, gap)
					bias := random(3, n)
					tol := 1e-6 * float64(k+4)
					packed := NewMatrix(format, b)
					want := product64(a, false, packed, bias)

					dst := blank(m, n, gap)
					Gemm(dst, a, packed, bias)
					near(t, name, dense(dst), want, tol)
					gapsIntact(t, dst)

					again := blank(m, n, 0)
					Gemm(again, a, newMatrixT(format, transpose(b, gap)), bias)
					if err := sameBits(dense(again), dense(dst)); err != nil {
						t.Fatalf("%s: NewMatrixT: %v", name, err)
					}
					GemmT(again, transpose(a, gap), packed, bias)
					if err := sameBits(dense(again), dense(dst)); err != nil {
						t.Fatalf("%s: GemmT: %v", name, err)
					}
					for i := range m {
						copy(again.Data[i*n:], bias)
					}
					GemmAdd(again, a, packed)
					if err := sameBits(dense(again), dense(dst)); err != nil {
						t.Fatalf("%s: GemmAdd to the bias: %v", name, err)
					}
					// A row alone gives the same bits.
					for i := range m {
						row := make([]float32, n)
						Gemv(row, a.Data[i*a.Stride:][:k], packed, bias)
						if err := sameBits(row, dst.Data[i*dst.Stride:][:n]); err != nil {
							t.Fatalf("%s: row %d alone: %v", name, i, err)
						}
					}
				}
			}
		}
	})
}

// TestGemmTiles takes every kernel's every vector, in each format: heights up to two full
// tiles, and whole panels with the last one ending in each of its vectors.
func TestGemmTiles(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const k = 3
		size := sizesOf[isa.Active()]
		for _, format := range formats {
			for panels := range 6 {
				for rest := 0; rest < size.panelCols; rest += max(1, size.lanes/2) {
					n := panels*size.panelCols + rest
					b, bias := NewMatrix(format, matrix(2, k, n, 0)), random(3, n)
					for m := 1; m <= 2*size.tileRows; m++ {
						a, dst := matrix(1, m, k, 0), blank(m, n, 1)
						Gemm(dst, a, b, bias)
						near(t, fmt.Sprintf("%v m=%d n=%d", format, m, n), dense(dst), product64(a, false, b, bias), 1e-5)
						gapsIntact(t, dst)
					}
				}
			}
		}
	})
}

// TestGemmGuarded runs tiles whose operands end, or begin, at unmapped memory.
func TestGemmGuarded(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, low := range []bool{false, true} {
			for m := 1; m <= 26; m++ {
				for _, n := range []int{1, 4, 12, 16, 31, 32, 33, 64, 128} {
					const k = 3
					a, b := matrix(1, m, k, 0), matrix(2, k, n, 0)
					g := func(rows, cols int, from []float32) blas32.General {
						data := guarded(t, rows*cols, low)
						copy(data, from)
						return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: data}
					}
					bias := g(1, n, random(3, n)).Data
					dst := g(m, n, nil)
					packed := NewMatrix(Float32, g(k, n, b.Data))
					Gemm(dst, g(m, k, a.Data), packed, bias)
					near(t, fmt.Sprintf("m=%d n=%d", m, n), dst.Data, product64(a, false, packed, bias), 1e-5)
				}
			}
		}
	})
}

func TestGemmEmpty(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		bias := []float32{1, 2, 3}
		b := NewMatrix(Float32, blas32.General{Rows: 0, Cols: 3, Stride: 3})
		dst := blank(2, 3, 1)
		Gemm(dst, blas32.General{Rows: 2, Stride: 0}, b, bias)
		if err := sameBits(dense(dst), []float32{1, 2, 3, 1, 2, 3}); err != nil {
			t.Errorf("k = 0: %v", err)
		}
		GemmAdd(dst, blas32.General{Rows: 2, Stride: 0}, b)
		Gemm(dst, blas32.General{Rows: 2, Stride: 0}, b, nil)
		if err := sameBits(dense(dst), make([]float32, 6)); err != nil {
			t.Errorf("k = 0, no bias: %v", err)
		}
		Gemm(blas32.General{Cols: 3, Stride: 3}, blas32.General{}, b, nil)
		Gemm(blas32.General{Rows: 2}, blas32.General{Rows: 2, Cols: 1, Stride: 1, Data: bias}, NewMatrix(Float32, blas32.General{Rows: 1}), nil)
	})
}

func TestGemmNaN(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		a, b := matrix(1, 14, 9, 0), matrix(2, 9, 40, 0)
		a.Data[3*9+4], b.Data[5*40+33] = nan, inf
		dst := blank(14, 40, 0)
		Gemm(dst, a, NewMatrix(Float32, b), nil)
		for i := range 14 {
			for j := range 40 {
				v := float64(dst.Data[i*40+j])
				if got, want := v == v && !math.IsInf(v, 0), i != 3 && j != 33; got != want {
					t.Fatalf("element %d, %d is %v", i, j, v)
				}
			}
		}
	})
}

func TestMatrixFormats(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		b := matrix(1, 30, 37, 2)
		for i := range 30 {
			b.Data[i*b.Stride+7] = 0
		}
		for _, format := range formats {
			m := NewMatrix(format, b)
			column := make([]float32, 30)
			for j := range 37 {
				m.Column(column, j)
				for i, v := range column {
					if v != m.At(i, j) {
						t.Fatalf("%v: column %d has %v at %d, want %v", format, j, v, i, m.At(i, j))
					}
				}
				var largest float64
				for i := range 30 {
					largest = max(largest, math.Abs(float64(b.Data[i*b.Stride+j])))
				}
				for i := range 30 {
					want := float64(b.Data[i*b.Stride+j])
					tol := map[Format]float64{Float32: 0, BFloat16: math.Abs(want) / 256, Float16: math.Abs(want)/2048 + 0x1p-25, Int8: largest / 254 * 1.0001}[format]
					if e := math.Abs(float64(m.At(i, j)) - want); !(e <= tol) {
						t.Errorf("%v: element %d, %d is %v, want %v within %v", format, i, j, m.At(i, j), want, tol)
					}
				}
			}
		}
		if got := scalar.BFloat16Bits(nan); math.Float32frombits(uint32(got)<<16) == 0 {
			t.Error("bfloat16 of NaN is not NaN")
		}
	})
}

// TestMatrixTier checks that a packed matrix keeps its tier.
func TestMatrixTier(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		a, b := matrix(1, 5, 20, 0), matrix(2, 20, 50, 0)
		packed := NewMatrix(Float32, b)
		want, got := blank(5, 50, 0), blank(5, 50, 0)
		Gemm(want, a, packed, nil)
		for _, tier := range isa.Available() {
			restore := isa.Use(tier)
			Gemm(got, a, packed, nil)
			restore()
			if err := sameBits(got.Data, want.Data); err != nil {
				t.Errorf("under %v: %v", tier, err)
			}
		}
	})
}

func TestGemmPanics(t *testing.T) {
	a, b, dst := matrix(1, 2, 3, 0), NewMatrix(Float32, matrix(2, 3, 4, 0)), blank(2, 4, 0)
	mustPanic(t, "asm: Gemm: a is 2 x 3, want 2 x 4", func() { Gemm(dst, a, NewMatrix(Float32, matrix(2, 4, 4, 0)), nil) })
	mustPanic(t, "asm: Gemm: dst is 1 x 4, want 2 x 4", func() { Gemm(blank(1, 4, 0), a, b, nil) })
	mustPanic(t, "asm: Gemm: bias has 3 elements, want 4", func() { Gemm(dst, a, b, make([]float32, 3)) })
	shared := make([]float32, 12)
	mustPanic(t, "asm: Gemm: dst overlaps an input", func() {
		Gemm(blas32.General{Rows: 2, Cols: 4, Stride: 4, Data: shared[:8]}, blas32.General{Rows: 2, Cols: 3, Stride: 3, Data: shared[6:]}, b, nil)
	})
	mustPanic(t, "asm: Gemm: dst is 2 x 4 with stride 4 but has only 7 elements", func() {
		Gemm(blas32.General{Rows: 2, Cols: 4, Stride: 4, Data: make([]float32, 7)}, a, b, nil)
	})
}

func TestAllocations(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		a, b, dst := matrix(1, 13, 40, 0), matrix(2, 40, 50, 0), blank(13, 50, 0)
		packed := NewMatrix(Float32, b)
		if n := testing.AllocsPerRun(10, func() {
			var x, y [64]float32 // on the stack: no kernel lets its arguments escape
			KeepAbove(y[:], x[:], y[:])
			ExpSum(y[:], x[:], 0)
			Flush(y[:])
			packed.Set(b)
			Gemm(dst, a, packed, nil)
		}); n != 0 {
			t.Errorf("%v allocations a run", n)
		}
	})
}
