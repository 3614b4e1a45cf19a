package asm

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/subquad/subquad/internal/isa/isatest"
)

// rotate64 is the definition of both rotations; pair says where the two features
// of pair i are.
func rotate64(x []float32, headDim, pairs int, cos, sin []float64, pair func(i int) (int, int)) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = float64(v)
	}
	for h := 0; h < len(x); h += headDim {
		for i := range pairs {
			a, b := pair(i)
			va, vb := float64(x[h+a]), float64(x[h+b])
			out[h+a], out[h+b] = va*cos[i]-vb*sin[i], vb*cos[i]+va*sin[i]
		}
	}
	return out
}

// rotations runs f for both layouts with tables of angles.
func rotations(pairs int, alloc func(n int) []float32, f func(name string, rotate func(dst, x []float32, headDim int), want func(x []float32, headDim int) []float64)) {
	r := rand.New(rand.NewPCG(3, uint64(pairs)))
	cos, sin := alloc(pairs), alloc(pairs)
	cos64, sin64 := make([]float64, pairs), make([]float64, pairs)
	for i := range pairs {
		cos[i], sin[i] = float32(r.NormFloat64()), float32(r.NormFloat64())
		cos64[i], sin64[i] = float64(cos[i]), float64(sin[i])
	}
	f("half", func(dst, x []float32, headDim int) { RotateHalf(dst, x, headDim, cos, sin) },
		func(x []float32, headDim int) []float64 {
			return rotate64(x, headDim, pairs, cos64, sin64, func(i int) (int, int) { return i, pairs + i })
		})
	f("interleaved", func(dst, x []float32, headDim int) { RotateInterleaved(dst, x, headDim, cos, sin) },
		func(x []float32, headDim int) []float64 {
			return rotate64(x, headDim, pairs, cos64, sin64, func(i int) (int, int) { return 2 * i, 2*i + 1 })
		})
}

// TestRotate compares with the definition, in place and not. The features after
// the rotated ones must stay as they are.
func TestRotate(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, pairs := range []int{0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 32, 33, 64, 100, 128, 129, 300} {
			for _, heads := range []int{0, 1, 3, 40} {
				for _, rest := range []int{0, 5} {
					headDim := 2*pairs + rest
					if headDim == 0 {
						continue
					}
					rotations(pairs, func(n int) []float32 { return make([]float32, n) }, func(name string, rotate func(dst, x []float32, headDim int), want func([]float32, int) []float64) {
						name = fmt.Sprintf("%s, %d pairs, %d heads of %d", name, pairs, heads, headDim)
						x := random(1, heads*headDim)
						expected := want(x, headDim)
						dst := random(2, len(x))
						before := append([]float32{}, dst...)
						rotate(dst, x, headDim)
						for i := range dst {
							if i%headDim >= 2*pairs {
								if dst[i] != before[i] {
									t.Fatalf("%s: element %d, which is not rotated, was written", name, i)
								}
								dst[i] = x[i]
							}
						}
						near(t, name, dst, expected, 2e-6)
						rotate(x, x, headDim)
						if err := sameBits(x, dst); err != nil {
							t.Fatalf("%s: in place: %v", name, err)
						}
					})
				}
			}
		}
	})
}

func TestRotateGuarded(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, low := range []bool{false, true} {
			for pairs := 1; pairs < 40; pairs++ {
				alloc := func(n int) []float32 { return guarded(t, n, low) }
				rotations(pairs, alloc, func(name string, rotate func(dst, x []float32, headDim int), want func([]float32, int) []float64) {
					x, dst := alloc(6*pairs), alloc(6*pairs)
					copy(x, random(1, len(x)))
					rotate(dst, x, 2*pairs)
					near(t, fmt.Sprint(name, " ", pairs), dst, want(x, 2*pairs), 2e-6)
				})
			}
		}
	})
}

func TestRotatePanics(t *testing.T) {
	x, c := make([]float32, 12), make([]float32, 4)
	mustPanic(t, "asm: RotateHalf: headDim is 6, want at least 8", func() { RotateHalf(x, x, 6, c, c) })
	mustPanic(t, "asm: RotateHalf: x has 12 elements, want a multiple of headDim = 8", func() { RotateHalf(x, x, 8, c, c) })
	mustPanic(t, "asm: RotateInterleaved: sin has 3 elements, want 4", func() { RotateInterleaved(x, x, 4, c, c[:3]) })
	mustPanic(t, "asm: RotateInterleaved: headDim is 4, want at least 6", func() { RotateInterleaved(x, x, 4, c[:3], c[:3]) })
	mustPanic(t, "asm: RotateHalf: dst overlaps an input without being the same", func() { RotateHalf(x[:8], x[4:], 4, c[:2], c[:2]) })
	mustPanic(t, "asm: RotateHalf: dst overlaps cos or sin", func() { RotateHalf(x, x, 12, x[:2], c[:2]) })
}

func BenchmarkRotate(b *testing.B) {
	const heads = 32
	for _, headDim := range []int{64, 128} {
		rotations(headDim/2, func(n int) []float32 { return make([]float32, n) }, func(name string, rotate func(dst, x []float32, headDim int), _ func([]float32, int) []float64) {
			b.Run(fmt.Sprintf("%s/d=%d", name, headDim), func(b *testing.B) {
				x := random(1, heads*headDim)
				for b.Loop() {
					rotate(x, x, headDim)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*heads*headDim), "ns/element")
			})
		})
	}
}
