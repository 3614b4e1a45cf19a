package hyena

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
)

var nan = float32(math.NaN())

// matrix returns a random rows x cols matrix with NaN in the gaps between rows.
func matrix(seed uint64, rows, cols, gap int) blas32.General {
	m := blas32.General{Rows: rows, Cols: cols, Stride: cols + gap, Data: random(seed, rows*(cols+gap))}
	for i := range m.Data {
		if i%m.Stride >= cols {
			m.Data[i] = nan
		}
	}
	return m
}

func clone(m blas32.General) blas32.General {
	m.Data = append([]float32{}, m.Data...)
	return m
}

// oracle is the sum itself, in float64, for one channel.
func oracle(cfg ConvConfig, u blas32.General, c int) []float64 {
	at := func(m blas32.General, row int) float64 { return float64(m.Data[row*m.Stride+c]) }
	y := make([]float64, u.Rows)
	for t := range y {
		for m := 0; m <= t && m < cfg.Kernel.Rows; m++ {
			y[t] += at(cfg.Kernel, m) * at(u, t-m)
		}
		for m := 0; t+m < u.Rows && m < cfg.Reverse.Rows; m++ {
			y[t] += at(cfg.Reverse, m) * at(u, t+m)
		}
		if cfg.Skip != nil {
			y[t] += float64(cfg.Skip[c]) * at(u, t)
		}
		if cfg.GELU {
			y[t] = y[t] / 2 * math.Erfc(-y[t]/math.Sqrt2)
		}
	}
	return y
}

// agree compares some channels of got with the oracle.
func agree(t *testing.T, name string, cfg ConvConfig, u, got blas32.General, channels ...int) {
	t.Helper()
	for _, c := range channels {
		tol := 2e-6 * math.Sqrt(float64(u.Rows)+1) * 4
		for i, want := range oracle(cfg, u, c) {
			if d := math.Abs(float64(got.Data[i*got.Stride+c]) - want); !(d <= tol*(1+math.Abs(want)*1e-1)) {
				t.Fatalf("%s: token %d, channel %d is %v, want %v", name, i, c, got.Data[i*got.Stride+c], want)
			}
		}
	}
}

func mustConv(t testing.TB, cfg ConvConfig) *Conv {
	t.Helper()
	c, err := NewConv(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestConvLengths runs every length to 300, then some to 3000 and primes about
// powers of two, on few channels, against the direct sum.
func TestConvLengths(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		lengths := []int{}
		for n := 1; n < 300; n++ {
			if n < 40 || n%7 == 0 || !testing.Short() {
				lengths = append(lengths, n)
			}
		}
		lengths = append(lengths, 509, 521, 1021, 1031)
		if !testing.Short() {
			for n := 300; n <= 3000; n += 37 {
				lengths = append(lengths, n)
			}
			lengths = append(lengths, 2039, 2053, 3000, 4093, 4099, 8191, 8209)
		}
		r := rand.New(rand.NewPCG(1, 1))
		for _, n := range lengths {
			for _, channels := range []int{1, 1 + r.IntN(40)} {
				cfg := ConvConfig{Kernel: matrix(1, n, channels, r.IntN(3)), Skip: random(2, channels)}
				switch r.IntN(4) {
				case 0:
					cfg.Reverse = matrix(3, n, channels, 1)
				case 1:
					cfg.Skip = nil
				case 2:
					cfg.Kernel.Rows = 1 + r.IntN(n) // a kernel shorter than the sequence
				}
				u, dst := matrix(4, n, channels, 2), matrix(5, n, channels, 1)
				if err := mustConv(t, cfg).Forward(dst, u); err != nil {
					t.Fatal(err)
				}
				name := fmt.Sprintf("%d tokens, %d channels, %d taps, %d reverse", n, channels, cfg.Kernel.Rows, cfg.Reverse.Rows)
				agree(t, name, cfg, u, dst, 0, channels-1)
				for i, v := range dst.Data {
					if i%dst.Stride >= channels && v == v {
						t.Fatalf("%s: wrote between the rows", name)
					}
				}
			}
		}
	})
}

// TestConvEveryLength runs all lengths to 3000, against the direct sum at the ends
// and at some tokens between.
func TestConvEveryLength(t *testing.T) {
	if testing.Short() {
		t.Skip("a quick run tests some lengths only: TestConvLengths")
	}
	const longest = 3000
	kernel, u := random(1, longest), random(2, longest)
	isatest.Run(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 1))
		for n := 1; n <= longest; n++ {
			column := func(x []float32) blas32.General { return blas32.General{Rows: n, Cols: 1, Stride: 1, Data: x[:n]} }
			dst := column(make([]float32, n))
			if err := mustConv(t, ConvConfig{Kernel: column(kernel), Workers: 1}).Forward(dst, column(u)); err != nil {
				t.Fatal(err)
			}
			for _, at := range []int{0, 1, n / 2, r.IntN(n), r.IntN(n), r.IntN(n), n - 2, n - 1} {
				at = min(max(at, 0), n-1)
				want := 0.0
				for m := range at + 1 {
					want += float64(kernel[m]) * float64(u[at-m])
				}
				if d := math.Abs(float64(dst.Data[at]) - want); !(d <= 8e-6*math.Sqrt(float64(n)+1)) {
					t.Fatalf("%d tokens: token %d is %v, want %v", n, at, dst.Data[at], want)
				}
			}
		}
	})
}

func TestConvChannels(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for channels := 1; channels <= 70; channels++ {
			for _, n := range []int{20, 90} {
				cfg := ConvConfig{Kernel: matrix(1, n, channels, 0), GELU: channels%2 == 0, Workers: 1 + channels%3}
				u := matrix(4, n, channels, 0)
				dst := clone(u)
				if err := mustConv(t, cfg).Forward(dst, dst); err != nil { // in place
					t.Fatal(err)
				}
				all := make([]int, channels)
				for c := range all {
					all[c] = c
				}
				agree(t, fmt.Sprintf("%d tokens, %d channels", n, channels), cfg, u, dst, all...)
			}
		}
	})
}

// TestConvBits checks that neither Workers nor the cache changes a bit.
func TestConvBits(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, n := range []int{30, 333, 2000} {
			const channels = 75
			cfg := ConvConfig{Kernel: matrix(1, n, channels, 0), Skip: random(2, channels), Workers: 1}
			u := matrix(4, n, channels, 0)
			var want []float32
			for _, workers := range []int{1, 2, 8} {
				for _, budget := range []int64{0, 1, 1 << 20} {
					cfg.Workers, cfg.SpectraBytes = workers, budget
					c := mustConv(t, cfg)
					for range 2 {
						dst := clone(u)
						if err := c.Forward(dst, dst); err != nil {
							t.Fatal(err)
						}
						if want == nil {
							want = dst.Data
						}
						for i, v := range dst.Data {
							if math.Float32bits(v) != math.Float32bits(want[i]) {
								t.Fatalf("%d tokens, %d workers, %d bytes: element %d is %v, was %v", n, workers, budget, i, v, want[i])
							}
						}
					}
					if used := c.cache.used; used > c.cache.most {
						t.Errorf("%d bytes of spectra, allowed %d", used, c.cache.most)
					}
				}
			}
		}
	})
}

// TestConvLaws checks linearity and that a shifted input gives a shifted output.
func TestConvLaws(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const n, channels, shift = 700, 21, 123
		c := mustConv(t, ConvConfig{Kernel: matrix(1, n, channels, 0)})
		a, b, sum := matrix(2, n, channels, 0), matrix(3, n, channels, 0), matrix(4, n, channels, 0)
		moved := matrix(5, n, channels, 0)
		for i := range sum.Data {
			sum.Data[i] = a.Data[i] + 2*b.Data[i]
			moved.Data[i] = 0
			if i >= shift*channels {
				moved.Data[i] = a.Data[i-shift*channels]
			}
		}
		for _, m := range []blas32.General{a, b, sum, moved} {
			if err := c.Forward(m, m); err != nil {
				t.Fatal(err)
			}
		}
		for i, v := range sum.Data {
			if w := a.Data[i] + 2*b.Data[i]; math.Abs(float64(v-w)) > 2e-4 {
				t.Fatalf("of a sum, element %d is %v, want %v", i, v, w)
			}
			w := float32(0)
			if i >= shift*channels {
				w = a.Data[i-shift*channels]
			}
			if math.Abs(float64(moved.Data[i]-w)) > 2e-4 {
				t.Fatalf("of a shifted input, element %d is %v, want %v", i, moved.Data[i], w)
			}
		}
	})
}

func TestConvAllocations(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, n := range []int{20, 600} {
			for _, workers := range []int{1, 4} {
				c := mustConv(t, ConvConfig{Kernel: matrix(1, n, 37, 0), Workers: workers, GELU: true})
				u := matrix(2, n, 37, 0)
				if a := isatest.Allocations(func() { c.Forward(u, u) }); a != 0 {
					t.Errorf("%d tokens, %d workers: %v allocations a call", n, workers, a)
				}
			}
		}
	})
}

func TestConvErrors(t *testing.T) {
	k := matrix(1, 40, 8, 0)
	for want, cfg := range map[string]ConvConfig{
		"hyena: Kernel is 0 x 0, want a tap and a channel or more":      {},
		"hyena: Workers is -1, want 0 to 65536":                         {Kernel: k, Workers: -1},
		"hyena: SpectraBytes is -1, want 0 or more":                     {Kernel: k, SpectraBytes: -1},
		"hyena: Skip has 3 elements, want channels = 8":                 {Kernel: k, Skip: make([]float32, 3)},
		"hyena: Reverse has 3 columns, want channels = 8":               {Kernel: k, Reverse: matrix(1, 4, 3, 0)},
		"hyena: Kernel is 9 x 8 with stride 8 but has only 64 elements": {Kernel: blas32.General{Rows: 9, Cols: 8, Stride: 8, Data: make([]float32, 64)}},
		"hyena: Kernel has 8 columns but a stride of 4":                 {Kernel: blas32.General{Rows: 9, Cols: 8, Stride: 4, Data: make([]float32, 64)}},
	} {
		if _, err := NewConv(cfg); !errors.Is(err, ErrConfig) || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	c := mustConv(t, ConvConfig{Kernel: k})
	u := matrix(2, 50, 8, 0)
	before := clone(u)
	for want, err := range map[string]error{
		"hyena: x has 7 columns, want channels = 8": c.Forward(u, matrix(1, 50, 7, 0)),
		"hyena: dst has 49 rows, want 50":           c.Forward(matrix(1, 49, 8, 0), u),
		"hyena: dst shares elements with an input":  c.Forward(blas32.General{Rows: 49, Cols: 8, Stride: 8, Data: u.Data[8:]}, blas32.General{Rows: 49, Cols: 8, Stride: 8, Data: u.Data}),
		"hyena: x has -1 rows":                      c.Forward(u, blas32.General{Rows: -1, Cols: 8, Stride: 8}),
	} {
		if !errors.Is(err, ErrShape) || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := c.Run(ctx, &ConvCall{Dst: u, X: u}); err != context.Canceled {
		t.Errorf("error %v", err)
	}
	for i := range u.Data {
		if u.Data[i] != before.Data[i] {
			t.Fatal("dst was written before an error")
		}
	}
	if err := c.Forward(blas32.General{Cols: 8}, blas32.General{Cols: 8}); err != nil {
		t.Errorf("no tokens: %v", err)
	}
}

func BenchmarkConv(b *testing.B) {
	for _, s := range [][2]int{{256, 1024}, {256, 8192}, {64, 65536}, {32, 1 << 20}, {1, 65536}} {
		channels, n := s[0], s[1]
		b.Run(fmt.Sprintf("c=%d/n=%d", channels, n), func(b *testing.B) {
			u, dst := matrix(2, n, channels, 0), matrix(3, n, channels, 0)
			c := mustConv(b, ConvConfig{Kernel: matrix(1, n, channels, 0), Skip: random(4, channels), SpectraBytes: 1 << 30})
			c.Forward(dst, u)
			b.ReportAllocs()
			for b.Loop() {
				c.Forward(dst, u)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n*channels), "ns/element")
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}
