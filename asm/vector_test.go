package asm

import (
	"fmt"
	"math"
	"testing"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/kernel"
)

// vectors lists the functions of slices as one shape: out takes up to two
// inputs and writes dst, or returns a number in dst[0].
var vectors = []struct {
	name   string
	f      func(dst, a, b []float32)
	oracle func(dst []float64, a, b []float32)
	reduce bool
	terms  float64 // the error is at most terms * n * 2^-24 times the largest magnitudes
}{
	{"Add", Add, elementwise(func(a, b float64) float64 { return a + b }), false, 0},
	{"Mul", Mul, elementwise(func(a, b float64) float64 { return a * b }), false, 0},
	{"Maximum", Maximum, elementwise(math.Max), false, 0},
	{"Scale", func(dst, a, _ []float32) { Scale(dst, 1.5, a) }, elementwise(func(a, _ float64) float64 { return 1.5 * a }), false, 0},
	{"Axpy", func(dst, a, b []float32) { copy(dst, b); Axpy(dst, 1.5, a) }, elementwise(func(a, b float64) float64 { return b + 1.5*a }), false, 0},
	{"Dot", func(dst, a, b []float32) { dst[0] = Dot(a, b) }, reduction(func(a, b float64) float64 { return a * b }), true, 1},
	{"SquaredDistance", func(dst, a, b []float32) { dst[0] = SquaredDistance(a, b) }, reduction(func(a, b float64) float64 { return (a - b) * (a - b) }), true, 3},
	{"Sum", func(dst, a, _ []float32) { dst[0] = Sum(a) }, reduction(func(a, _ float64) float64 { return a }), true, 1},
	{"Max", func(dst, a, _ []float32) { dst[0] = Max(a) }, func(dst []float64, a, _ []float32) {
		dst[0] = math.Inf(-1)
		for _, v := range a {
			dst[0] = math.Max(dst[0], float64(v))
		}
	}, true, 0},
	{"Cosine", func(dst, a, b []float32) { dst[0] = Cosine(a, b) }, func(dst []float64, a, b []float32) {
		var ab, aa, bb float64
		for i := range a {
			ab, aa, bb = ab+float64(a[i])*float64(b[i]), aa+float64(a[i])*float64(a[i]), bb+float64(b[i])*float64(b[i])
		}
		if dst[0] = 0; aa*bb > 0 {
			dst[0] = ab / math.Sqrt(aa*bb)
		}
	}, true, 1},
	{"LayerNorm", func(dst, a, b []float32) { LayerNorm(dst, a, b, a2(b), 1e-5) }, func(dst []float64, a, b []float32) {
		mean, variance := moments(a)
		for i, v := range a {
			dst[i] = (float64(v)-mean)/math.Sqrt(variance+1e-5)*float64(b[i]) + float64(-b[i]/2)
		}
	}, false, 40},
	{"RMSNorm", func(dst, a, b []float32) { RMSNorm(dst, a, b, 1e-5) }, func(dst []float64, a, b []float32) {
		mean, variance := moments(a)
		for i, v := range a {
			dst[i] = float64(v) / math.Sqrt(variance+mean*mean+1e-5) * float64(b[i])
		}
	}, false, 40},
	{"Softmax", func(dst, a, _ []float32) { Softmax(dst, a) }, func(dst []float64, a, _ []float32) {
		largest, sum := math.Inf(-1), 0.0
		for _, v := range a {
			largest = math.Max(largest, float64(v))
		}
		for i, v := range a {
			dst[i] = math.Exp(float64(v) - largest)
			sum += dst[i]
		}
		for i := range a {
			dst[i] /= sum
		}
	}, false, 20},
}

// a2 is another vector made from b.
func a2(b []float32) []float32 {
	c := make([]float32, len(b))
	for i, v := range b {
		c[i] = -v / 2
	}
	return c
}

func moments(a []float32) (mean, variance float64) {
	for _, v := range a {
		mean += float64(v) / float64(len(a))
	}
	for _, v := range a {
		variance += (float64(v) - mean) * (float64(v) - mean) / float64(len(a))
	}
	return
}

func elementwise(f func(a, b float64) float64) func(dst []float64, a, b []float32) {
	return func(dst []float64, a, b []float32) {
		for i := range a {
			dst[i] = f(float64(a[i]), float64(b[i]))
		}
	}
}

func reduction(f func(a, b float64) float64) func(dst []float64, a, b []float32) {
	return func(dst []float64, a, b []float32) {
		dst[0] = 0
		for i := range a {
			dst[0] += f(float64(a[i]), float64(b[i]))
		}
	}
}

// TestVectors compares with float64 at every length across the parts of a
// kernel, at odd addresses and against unmapped memory.
func TestVectors(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		lengths := []int{kernel.Chunk - 1, kernel.Chunk, kernel.Chunk + 1, 3*kernel.Chunk + 17}
		for n := range 200 {
			lengths = append(lengths, n)
		}
		for _, n := range lengths {
			for _, low := range []bool{false, true} {
				a, b := guarded(t, n, low), guarded(t, n, low)
				for _, v := range vectors {
					copy(a, random(1, n))
					copy(b, random(2, n))
					dst := make([]float32, n+3)
					dst[0], dst[n+2] = 7, 7
					size := n
					if v.reduce {
						size = 1
					}
					want := make([]float64, max(n, 1))
					v.oracle(want, a, b)
					v.f(dst[1:1+size], a, b)
					tol := 1e-6
					if v.reduce {
						tol += v.terms * math.Sqrt(float64(n)) * 4 * 0x1p-24
					} else {
						tol += v.terms * 0x1p-24
					}
					for i, w := range want[:size] {
						if e := math.Abs(float64(dst[1+i]) - w); !(e <= tol*max(1, math.Abs(w))) && float64(dst[1+i]) != w {
							t.Fatalf("%s of %d: element %d is %v, want %v", v.name, n, i, dst[1+i], w)
						}
					}
					if dst[0] != 7 || !v.reduce && dst[n+1] != 0 || dst[n+2] != 7 {
						t.Fatalf("%s of %d wrote outside dst", v.name, n)
					}
				}
			}
		}
	})
}

// TestVectorsNaN puts a NaN at each place in turn: every reduction must see it.
func TestVectorsNaN(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, v := range vectors {
			if !v.reduce && v.name != "Softmax" && v.name != "LayerNorm" && v.name != "RMSNorm" {
				continue
			}
			for _, n := range []int{1, 3, 37, 150} {
				for at := range n {
					a, b := random(1, n), random(2, n)
					a[at] = nan
					dst := make([]float32, n)
					if v.reduce {
						dst = dst[:1]
					}
					v.f(dst, a, b)
					for i, y := range dst {
						if y == y {
							t.Fatalf("%s of %d with NaN at %d: element %d is %v", v.name, n, at, i, y)
						}
					}
				}
			}
		}
	})
}

func TestMaxInf(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		if got := Max(nil); got != -inf {
			t.Errorf("Max of nothing is %v", got)
		}
		for n := 1; n < 40; n++ {
			x := make([]float32, n)
			for i := range x {
				x[i] = -inf
			}
			if got := Max(x); got != -inf {
				t.Errorf("Max of %d -Inf is %v", n, got)
			}
			x[n-1] = -5
			if got := Max(x); got != -5 {
				t.Errorf("Max of -5 and -Inf is %v", got)
			}
		}
	})
}

// TestMaxNaN: Max finds a NaN of either sign wherever it stands, next to another or to an
// infinity, and takes neither for the other.
func TestMaxNaN(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		negative := math.Float32frombits(0xffc00001)
		for _, n := range []int{1, 15, 16, 64, 65, 129, kernel.Chunk + 3} {
			x := random(1, n)
			step := max(n/150, 1)
			for at := 0; at < n; at += step {
				old := x[at]
				x[at] = inf
				if got := Max(x); got != inf {
					t.Fatalf("Max of %d with Inf at %d is %v", n, at, got)
				}
				for _, v := range []float32{nan, negative} {
					x[at] = v
					if got := Max(x); got == got {
						t.Fatalf("Max of %d with %x at %d is %v", n, math.Float32bits(v), at, got)
					}
				}
				x[at] = old
			}
		}
	})
}

func TestSoftmaxMasked(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, n := range []int{1, 5, 33} {
			x := make([]float32, n)
			for i := range x {
				x[i] = -inf
			}
			Softmax(x, x)
			if err := sameBits(x, make([]float32, n)); err != nil {
				t.Errorf("all masked: %v", err)
			}
			x = random(1, n)
			x[n/2] = inf
			Softmax(x, x)
			for _, v := range x {
				if v == v {
					t.Errorf("with +Inf: %v", x)
				}
			}
		}
	})
}

func TestNormNil(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		x := random(1, 37)
		ones, none := make([]float32, 37), make([]float32, 37)
		for i := range ones {
			ones[i] = 1
		}
		got, want := make([]float32, 37), make([]float32, 37)
		for _, affine := range [][2][]float32{{nil, nil}, {ones, nil}, {nil, none}} {
			LayerNorm(got, x, affine[0], affine[1], 1e-5)
			LayerNorm(want, x, ones, none, 1e-5)
			for i := range got {
				if ulp(got[i], float64(want[i])) > 1 {
					t.Errorf("LayerNorm without weight or bias: element %d is %v, want %v", i, got[i], want[i])
				}
			}
		}
		RMSNorm(got, x, nil, 1e-5)
		RMSNorm(want, x, ones, 1e-5)
		if err := sameBits(got, want); err != nil {
			t.Errorf("RMSNorm without weight: %v", err)
		}
	})
}

func TestVectorPanics(t *testing.T) {
	x := make([]float32, 4)
	mustPanic(t, "asm: Dot: b has 3 elements, want 4", func() { Dot(x, x[:3]) })
	mustPanic(t, "asm: Softmax: dst has 3 elements, want 4", func() { Softmax(x[:3], x) })
	mustPanic(t, "asm: Add: dst has 2 elements, want 4", func() { Add(x[:2], x, x) })
	mustPanic(t, "asm: LayerNorm: weight has 3 elements, want 4", func() { LayerNorm(x, x, x[:3], nil, 0) })
	mustPanic(t, "asm: RMSNorm: dst overlaps weight", func() { RMSNorm(x, make([]float32, 4), x, 0) })
}

// peers are another library's functions beside ours, where it builds.
var peers = map[string]func(x, y []float32) float32{}

// benchmarkReduction times a function that makes one number of vectors, and its peer.
func benchmarkReduction(b *testing.B, name string, ours func(x, y []float32) float32) {
	for _, f := range []struct {
		prefix string
		f      func(x, y []float32) float32
	}{{"", ours}, {"vek32/", peers[name]}} {
		if f.f == nil {
			continue
		}
		for _, n := range []int{64, 256, 1024, 65536} {
			x, y := random(1, n), random(2, n)
			b.Run(fmt.Sprintf("%sn=%d", f.prefix, n), func(b *testing.B) {
				for b.Loop() {
					f.f(x, y)
				}
			})
		}
	}
}

func BenchmarkDot(b *testing.B) {
	benchmarkReduction(b, "Dot", func(x, y []float32) float32 { return Dot(x, y) })
}

func BenchmarkSum(b *testing.B) {
	benchmarkReduction(b, "Sum", func(x, _ []float32) float32 { return Sum(x) })
}

func BenchmarkMax(b *testing.B) {
	benchmarkReduction(b, "Max", func(x, _ []float32) float32 { return Max(x) })
}

// benchmarkRows times f over the rows of a matrix larger than the L2 cache.
func benchmarkRows(b *testing.B, f func(dst, x []float32)) {
	const rows, n = 4096, 1024
	b.Run("rows=4096/n=1024", func(b *testing.B) {
		x, y := random(1, rows*n), make([]float32, rows*n)
		for b.Loop() {
			for i := 0; i < rows*n; i += n {
				f(y[i:i+n], x[i:i+n])
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*rows*n), "ns/element")
	})
}

func BenchmarkSoftmax(b *testing.B) { benchmarkRows(b, Softmax) }

func BenchmarkRMSNorm(b *testing.B) {
	w := random(3, 1024)
	benchmarkRows(b, func(dst, x []float32) { RMSNorm(dst, x, w, 1e-5) })
}

func BenchmarkLayerNorm(b *testing.B) {
	w, bias := random(3, 1024), random(4, 1024)
	benchmarkRows(b, func(dst, x []float32) { LayerNorm(dst, x, w, bias, 1e-5) })
}

// TestMaximumNaN puts a NaN at each place of either input.
func TestMaximumNaN(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const n = 37
		for at := range n {
			for _, first := range []bool{false, true} {
				a, b, dst := random(1, n), random(2, n), make([]float32, n)
				if first {
					a[at] = nan
				} else {
					b[at] = nan
				}
				Maximum(dst, a, b)
				for i, y := range dst {
					if (y != y) != (i == at) {
						t.Fatalf("NaN at %d: element %d is %v", at, i, y)
					}
				}
			}
		}
	})
}
