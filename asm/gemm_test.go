package asm

import (
	"fmt"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
)

var formats = []Format{Float32, BFloat16, Int8, Float16}

// TestMatrix checks that the public matrix is the kernels' one in every format, which
// package kernel tests.
func TestMatrix(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const m, k, n = 5, 37, 70
		a, b, bias := matrix(1, m, k, 2), matrix(2, k, n, 3), random(3, n)
		for _, format := range formats {
			packed := NewMatrix(format, b)
			if rows, cols := packed.Dims(); rows != k || cols != n || packed.Format() != format {
				t.Errorf("%v: %d x %d as %v", format, rows, cols, packed.Format())
			}
			if least := k * n * map[Format]int{Float32: 4, BFloat16: 2, Int8: 1, Float16: 2}[format]; packed.Bytes() < int64(least) {
				t.Errorf("%v: %d bytes, want at least %d", format, packed.Bytes(), least)
			}
			want, column := make([]float64, 0, m*n), make([]float32, k)
			for i := range m {
				for j := range n {
					sum := float64(bias[j])
					packed.Column(column, j)
					for l, v := range column {
						if v != packed.At(l, j) {
							t.Fatalf("%v: element %d, %d is %v and %v", format, l, j, v, packed.At(l, j))
						}
						sum += float64(a.Data[i*a.Stride+l]) * float64(v)
					}
					want = append(want, sum)
				}
			}
			dst := blank(m, n, 1)
			Gemm(dst, a, packed, bias)
			near(t, format.String(), dense(dst), want, 1e-5)
			gapsIntact(t, dst)
			again := blank(m, n, 0)
			for i := range m {
				copy(again.Data[i*n:], bias)
			}
			GemmAdd(again, a, packed)
			if err := sameBits(again.Data, dense(dst)); err != nil {
				t.Errorf("%v: GemmAdd to the bias: %v", format, err)
			}
			Gemv(again.Data[:n], a.Data[:k], packed, bias)
			if err := sameBits(again.Data[:n], dst.Data[:n]); err != nil {
				t.Errorf("%v: Gemv: %v", format, err)
			}
		}
		var set Matrix
		set.Set(b)
		turned := blas32.General{Rows: n, Cols: k, Stride: k, Data: make([]float32, n*k)}
		for j := range n {
			set.Column(turned.Data[j*k:][:k], j)
		}
		var setT Matrix
		setT.SetT(turned)
		x, y := blank(m, n, 0), blank(m, n, 0)
		Gemm(x, a, &set, nil)
		Gemm(y, a, &setT, nil)
		if err := sameBits(x.Data, y.Data); err != nil {
			t.Errorf("Set and SetT of the transpose: %v", err)
		}
	})
}

func TestMatrixPanics(t *testing.T) {
	m := NewMatrix(Int8, matrix(1, 3, 4, 0))
	mustPanic(t, "asm: Matrix.At: (3, 0) is outside 3 x 4", func() { m.At(3, 0) })
	mustPanic(t, "asm: Matrix.Column: dst has 2 elements, want 3", func() { m.Column(make([]float32, 2), 0) })
	mustPanic(t, "asm: Matrix.Column: column 4 is outside 3 x 4", func() { m.Column(make([]float32, 3), 4) })
	mustPanic(t, "asm: Matrix: format 4", func() { NewMatrix(4, matrix(1, 3, 4, 0)) })
	mustPanic(t, "asm: Gemv: x has 2 elements, want 3", func() { Gemv(make([]float32, 4), make([]float32, 2), m, nil) })
}

func BenchmarkGemm(b *testing.B) {
	for _, n := range []int{128, 192, 1024} {
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			x, y, dst := matrix(1, n, n, 0), matrix(2, n, n, 0), blank(n, n, 0)
			var packed Matrix // packing is part of the product
			packed.Set(y)
			b.ReportAllocs()
			for b.Loop() {
				packed.Set(y)
				Gemm(dst, x, &packed, nil)
			}
			b.ReportMetric(2*float64(n)*float64(n)*float64(n)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}

// BenchmarkGemmNaive is what anyone writes first, the sum over k innermost, and what one
// writes second, whole rows of the right operand innermost. The generic tier has to be
// faster than both.
func BenchmarkGemmNaive(b *testing.B) {
	const n = 192
	x, y, dst := random(1, n*n), random(2, n*n), make([]float32, n*n)
	for name, f := range map[string]func(){
		"sums": func() {
			for i := range n {
				for j := range n {
					sum := float32(0)
					for k := range n {
						sum += x[i*n+k] * y[k*n+j]
					}
					dst[i*n+j] = sum
				}
			}
		},
		"rows": func() {
			clear(dst)
			for i := range n {
				row := dst[i*n:][:n]
				for k, a := range x[i*n:][:n] {
					for j, v := range y[k*n:][:n] {
						row[j] += a * v
					}
				}
			}
		},
	} {
		b.Run(fmt.Sprintf("%s/n=%d", name, n), func(b *testing.B) {
			for b.Loop() {
				f()
			}
			b.ReportMetric(2*n*n*n*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}

func BenchmarkGemv(b *testing.B) {
	for _, format := range formats {
		const n = 4096
		b.Run(fmt.Sprintf("%v/n=%d", format, n), func(b *testing.B) {
			packed := NewMatrixT(format, matrix(1, n, n, 0))
			x, dst := random(2, n), make([]float32, n)
			b.ReportAllocs()
			for b.Loop() {
				Gemv(dst, x, packed, nil)
			}
			b.ReportMetric(float64(packed.Bytes())*float64(b.N)/b.Elapsed().Seconds()/1e9, "GB/s")
		})
	}
}
