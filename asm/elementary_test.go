package asm

import (
	"flag"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/kernel"
)

var exhaustive = flag.Bool("exhaustive", false, "test elementary functions on all 2^32 inputs, not a sample")

// elementary lists the functions of one argument with their float64 oracle,
// what they give for special arguments, and the stated error.
var elementary = []struct {
	name    string
	f       func(dst, x []float32)
	oracle  func(x float64) float64
	special map[float32]float32
	bound   func(x float32) float64 // ULP
}{
	{"Exp", Exp, func(x float64) float64 { return flush(math.Exp(x)) },
		map[float32]float32{0: 1, inf: inf, -inf: 0, 88.72283: expOf(88.72283), 88.72284: inf, -87.33654: expOf(-87.33654), -87.34: 0, -104: 0, 1e-40: 1},
		always(1.1)},
	{"Sin", Sin, math.Sin,
		map[float32]float32{0: 0, inf: nan, -inf: nan, 1e-40: 1e-40, 1e30: float32(math.Sin(float64(float32(1e30))))},
		always(2)},
	{"Sigmoid", Sigmoid, func(x float64) float64 { return sigmoid(x) },
		map[float32]float32{0: 0.5, inf: 1, -inf: 0, -100: 0, 100: 1},
		always(2.5)},
	{"SiLU", SiLU, func(x float64) float64 { return max(x, -200) * sigmoid(x) },
		map[float32]float32{0: 0, inf: inf, -inf: 0, -100: 0, 100: 100},
		always(2.5)},
	{"Softcap", func(dst, x []float32) { Softcap(dst, 5, x) }, func(x float64) float64 { return 5 * math.Tanh(x/5) },
		map[float32]float32{0: 0, inf: 5, -inf: -5, 1e20: 5, -100: -5},
		always(4)},
	{"Softplus", Softplus, func(x float64) float64 { return flush(math.Max(x, 0) + math.Log1p(math.Exp(-math.Abs(x)))) },
		map[float32]float32{inf: inf, -inf: 0, -100: 0, 100: 100, 0: math.Ln2},
		always(4)},
	{"ELUPlusOne", ELUPlusOne, func(x float64) float64 {
		if x > 0 {
			return x + 1
		}
		return flush(math.Exp(x))
	},
		map[float32]float32{0: 1, inf: inf, -inf: 0, 1: 2, -87.34: 0, 1e-40: 1, 100: 101},
		always(1.1)},
	{"GELUTanh", GELUTanh, func(x float64) float64 {
		x = max(x, -20)
		return x / (1 + math.Exp(-2*math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x)))
	},
		map[float32]float32{0: 0, inf: inf, -inf: 0, -20: 0, 20: 20, 1e20: 1e20},
		func(x float32) float64 {
			switch {
			case x < -10:
				return math.Inf(1) // the result is flushed, or about to be
			case x < -1:
				return 300
			}
			return 3
		}},
	{"GELU", GELU, func(x float64) float64 { x = max(x, -50); return x / 2 * math.Erfc(-x/math.Sqrt2) },
		map[float32]float32{0: 0, inf: inf, -inf: 0, -20: 0, 20: 20, 1e20: 1e20},
		func(x float32) float64 {
			switch {
			case x < -12.9:
				return math.Inf(1)
			case x < -5:
				return 8
			}
			return 6
		}},
}

func expOf(x float32) float32 { return float32(math.Exp(float64(x))) }

func always(b float64) func(float32) float64 { return func(float32) float64 { return b } }

// sigmoid is 0 where exp(-x) is +Inf in float32.
func sigmoid(x float64) float64 {
	if -x > 88.72283172607421875 {
		return 0
	}
	return 1 / (1 + math.Exp(-x))
}

// TestElementaryError checks the stated error on a random sample of all
// float32, or with -exhaustive on every one.
func TestElementaryError(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, e := range elementary {
			t.Run(e.name, func(t *testing.T) {
				worst, at := 0.0, float32(0)
				x, y := make([]float32, 1<<16), make([]float32, 1<<16)
				r := rand.New(rand.NewPCG(1, 2))
				blocks := 1 << 3
				if *exhaustive {
					blocks = 1 << 16
				}
				for block := range blocks {
					for i := range x {
						switch {
						case *exhaustive:
							x[i] = math.Float32frombits(uint32(block<<16 | i))
						case i%2 == 0: // any bits
							x[i] = math.Float32frombits(r.Uint32())
						default: // where the function bends
							x[i] = float32(r.NormFloat64() * 10)
						}
					}
					e.f(y, x)
					for i, v := range x {
						want := e.oracle(float64(v))
						if d := ulp(y[i], want); d > worst && d > 0 && e.bound(v) < math.Inf(1) && !nearFlush(want) {
							if d > e.bound(v) {
								t.Fatalf("%s(%v) = %v, want %v: off by %.2f ULP", e.name, v, y[i], want, d)
							}
							worst, at = d, v
						} else if (y[i] != y[i]) != (want != want) {
							t.Fatalf("%s(%v) = %v, want %v", e.name, v, y[i], want)
						}
					}
				}
				t.Logf("%s: largest error %.3f ULP, at %v", e.name, worst, at)
			})
		}
	})
}

func TestElementarySpecial(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, e := range elementary {
			for x, want := range e.special {
				in := []float32{x, nan, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x} // a vector and a tail
				got := make([]float32, len(in))
				e.f(got, in)
				for i := range in {
					if i == 1 {
						if got[i] == got[i] {
							t.Errorf("%s(NaN) = %v", e.name, got[i])
						}
					} else if ulp(got[i], float64(want)) > 1.6 {
						t.Errorf("%s(%v) = %v, want %v (element %d)", e.name, x, got[i], want, i)
					}
				}
			}
		}
	})
}

// TestElementaryEdges runs every length across the unrolled, single and tail
// parts, against unmapped memory at both ends, in place and not: each must give the
// bits that one long call gives.
func TestElementaryEdges(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, e := range elementary {
			long := random(3, 300)
			want := make([]float32, len(long))
			e.f(want, long)
			for n := range len(long) {
				for _, low := range []bool{false, true} {
					x := guarded(t, n, low)
					copy(x, long)
					dst := make([]float32, n+2)
					dst[0], dst[n+1] = 7, 7
					e.f(dst[1:n+1], x)
					if err := sameBits(dst[1:n+1], want[:n]); err != nil {
						t.Fatalf("%s of %d: %v", e.name, n, err)
					}
					if dst[0] != 7 || dst[n+1] != 7 {
						t.Fatalf("%s of %d wrote outside dst", e.name, n)
					}
					e.f(x, x)
					if err := sameBits(x, want[:n]); err != nil {
						t.Fatalf("%s of %d in place: %v", e.name, n, err)
					}
				}
			}
		}
	})
}

// TestElementaryChunks checks lengths beyond what one kernel call takes.
func TestElementaryChunks(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, e := range elementary {
			x := random(4, 2*kernel.Chunk+5)
			whole, parts := make([]float32, len(x)), make([]float32, len(x))
			e.f(whole, x)
			for i := 0; i < len(x); i += 1000 {
				end := min(i+1000, len(x))
				e.f(parts[i:end], x[i:end])
			}
			if err := sameBits(whole, parts); err != nil {
				t.Errorf("%s: %v", e.name, err)
			}
		}
	})
}

func TestElementaryPanics(t *testing.T) {
	x := make([]float32, 4)
	mustPanic(t, "asm: Exp: dst has 3 elements, want 4", func() { Exp(x[:3], x) })
	mustPanic(t, "asm: GELU: dst overlaps an input without being the same", func() { GELU(x[1:], x[:3]) })
}

func BenchmarkElementary(b *testing.B) {
	x, y := random(5, 4096), make([]float32, 4096)
	for _, e := range elementary {
		b.Run(e.name, func(b *testing.B) {
			for b.Loop() {
				e.f(y, x)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(x)), "ns/element")
		})
	}
}
