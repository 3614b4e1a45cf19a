package asm

import (
	"fmt"
	"math"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/isa/isatest"
)

var precisions = []Precision{Single, BFloat16x3, BFloat16x6, BFloat16x1}

// TestPrecision checks the public names of what package kernel tests, and the bounds that
// Precision states, beside float64.
func TestPrecision(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const m, k, n = 35, 300, 70
		a, b, bias := matrix(1, m, k, 2), matrix(2, k, n, 3), random(3, n)
		turned := blas32.General{Rows: n, Cols: k, Stride: k, Data: make([]float32, n*k)}
		for i := range n * k {
			turned.Data[i] = b.Data[i%k*b.Stride+i/k]
		}
		for _, p := range precisions {
			packed := NewMatrixIn(p, b)
			if rows, cols := packed.Dims(); rows != k || cols != n || packed.Precision() != p || packed.Format() != Float32 {
				t.Errorf("%v: %d x %d of %v in %v", p, rows, cols, packed.Format(), packed.Precision())
			}
			left := map[Precision]float64{BFloat16x3: 0x1p-15, BFloat16x6: 0x1p-24, BFloat16x1: 0x1p-7}[p]
			sums := map[Precision]float64{Single: k, BFloat16x3: 3*k/32 + 21, BFloat16x6: 6*k/32 + 24, BFloat16x1: k/32 + 20}[p]
			dst, again := blank(m, n, 1), blank(m, n, 0)
			Gemm(dst, a, packed, bias)
			gapsIntact(t, dst)
			largest := 0.0
			for i := range m {
				for j := range n {
					want, size := float64(bias[j]), math.Abs(float64(bias[j]))
					for l := range k {
						x := float64(a.Data[i*a.Stride+l]) * float64(b.Data[l*b.Stride+j])
						want, size = want+x, size+math.Abs(x)
					}
					if e := math.Abs(float64(dst.Data[i*dst.Stride+j])-want) / size; !(e <= left+sums*0x1p-24) {
						t.Fatalf("%v: element %d, %d is off by %v of %v", p, i, j, e, size)
					} else {
						largest = max(largest, e)
					}
				}
			}
			t.Logf("%v on %s: the largest error is %.1e of S", p, p.Unit(), largest)
			Gemm(again, a, NewMatrixTIn(p, turned), bias)
			if err := sameBits(again.Data, dense(dst)); err != nil {
				t.Errorf("%v: NewMatrixTIn: %v", p, err)
			}
		}
	})
}

// TestPrecisionUnit checks that a unit is named for what was asked for alone, and by the
// highest tier alone.
func TestPrecisionUnit(t *testing.T) {
	if NewMatrix(Float32, matrix(1, 2, 2, 0)).Precision() != Single {
		t.Error("a matrix is multiplied in another precision unasked")
	}
	for p, want := range map[Precision]string{Single: "float32", BFloat16x3: "bfloat16x3", BFloat16x6: "bfloat16x6", BFloat16x1: "bfloat16x1"} {
		if p.String() != want {
			t.Errorf("%v, want %s", p, want)
		}
		name := "none"
		if p != Single && isa.Granted(isa.AMXBFloat16) {
			name = "amx-bf16"
		}
		if got := p.Unit(); got != name {
			t.Errorf("%v runs on %s, want %s", p, got, name)
		}
		restore := isa.Use(isa.Generic)
		if got := p.Unit(); len(isa.Available()) > 1 && got != "none" {
			t.Errorf("%v runs on %s in the generic tier", p, got)
		}
		restore()
	}
	mustPanic(t, "asm: precision 4", func() { NewMatrixIn(BFloat16x1+1, matrix(1, 2, 2, 0)) })
}

// BenchmarkGemmPrecision is a product of packed matrices in each precision, of a token and
// of a block of tokens.
func BenchmarkGemmPrecision(b *testing.B) {
	for _, s := range [][3]int{{1, 2048, 2048}, {32, 1024, 1024}, {192, 576, 1536}, {192, 2048, 2048}} {
		m, n, k := s[0], s[1], s[2]
		for _, p := range precisions {
			b.Run(fmt.Sprintf("m=%d,n=%d,k=%d/%v", m, n, k, p), func(b *testing.B) {
				if p != Single && p.Unit() == "none" {
					b.Skip("not run: unit")
				}
				x, packed, dst := matrix(1, m, k, 0), NewMatrixIn(p, matrix(2, k, n, 0)), blank(m, n, 0)
				for b.Loop() {
					Gemm(dst, x, packed, nil)
				}
				b.ReportMetric(2*float64(m)*float64(n)*float64(k)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
			})
		}
	}
}

// TestNames: what is no format or precision has a name, too, for errors that tell it.
func TestNames(t *testing.T) {
	for got, want := range map[string]string{
		Float16.String(): "float16", Format(4).String(): "format 4", Format(255).String(): "format 255",
		BFloat16x1.String(): "bfloat16x1", Precision(4).String(): "precision 4", Precision(255).String(): "precision 255",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
