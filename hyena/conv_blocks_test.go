package hyena

import (
	"fmt"
	"math"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
)

// TestWindows compares convolutions that are cut into windows with the sum in float64, with
// and without reverse kernels, in place and not, for channels side by side and alone, and
// wants the same bits from any number of workers and any cache.
func TestWindows(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, s := range []struct{ n, taps, reverse, channels int }{
			{170001, 64, 0, 1}, {20001, 64, 0, 18}, {10000, 33, 50, 17}, {150000, 1, 40, 2}, {180000, 700, 300, 1}, {400000, 2000, 0, 1}, {33333, 40, 200, 33},
		} {
			if testing.Short() && s.n*s.channels > 400000 {
				continue
			}
			cfg := ConvConfig{Kernel: matrix(1, s.taps, s.channels, 1), Skip: random(2, s.channels)}
			if s.reverse > 0 {
				cfg.Reverse = matrix(3, s.reverse, s.channels, 0)
			}
			u := matrix(4, s.n, s.channels, 1)
			var want []float32
			for _, workers := range []int{1, 3} {
				for _, spectra := range []int64{0, 1} {
					for _, inPlace := range []bool{false, true} {
						cfg.Workers, cfg.SpectraBytes = workers, spectra
						c := mustConv(t, cfg)
						cuts := [2]cut{c.cutOf(s.n, false), c.cutOf(s.n, true)}
						if cuts[0].count < 3 && s.channels > 8 || cuts[1].count < 3 && s.channels == 1 {
							t.Fatalf("%+v: cut in %+v", s, cuts)
						}
						dst, in := matrix(5, s.n, s.channels, 1), u
						if inPlace {
							dst = clone(u)
							in = dst
						}
						if err := c.Forward(dst, in); err != nil {
							t.Fatal(err)
						}
						name := fmt.Sprintf("%+v, %d workers, %d bytes, in place %v", s, workers, spectra, inPlace)
						if want == nil {
							want = dst.Data
							agreeAt(t, name, cfg, u, dst, &cuts)
						}
						for i, v := range dst.Data {
							if i%dst.Stride < s.channels && math.Float32bits(v) != math.Float32bits(want[i]) {
								t.Fatalf("%s: token %d is %v, was %v", name, i/dst.Stride, v, want[i])
							}
						}
						x := c.scratch.convs.Get()
						x.units = nil
						if held, said := isatest.Held(x), c.ScratchBytes(s.n); held > said || held < said/8 {
							t.Errorf("%s: holds %d bytes, said %d", name, held, said)
						}
					}
				}
			}
		}
	})
}

// agreeAt compares tokens about the windows' borders, and some between, with the sum in
// float64. The error of a window is about 2^-24 times the norms of its inputs and taps, and
// some more for the stages.
func agreeAt(t *testing.T, name string, cfg ConvConfig, u, got blas32.General, cuts *[2]cut) {
	t.Helper()
	at := []int{0, 1, u.Rows / 2, u.Rows - 2, u.Rows - 1}
	for _, k := range cuts {
		for w := 0; w < k.count; w += 1 + k.count/5 {
			from, to := k.outputs(w, u.Rows)
			at = append(at, from, min(from+1, u.Rows-1), to-1, (from+to)/2)
		}
	}
	norm := math.Sqrt(float64(cfg.Kernel.Rows + cfg.Reverse.Rows))
	for _, c := range []int{0, u.Cols - 1} {
		for _, i := range at {
			var want float64
			for m := 0; m <= i && m < cfg.Kernel.Rows; m++ {
				want += float64(cfg.Kernel.Data[m*cfg.Kernel.Stride+c]) * float64(u.Data[(i-m)*u.Stride+c])
			}
			for m := 0; i+m < u.Rows && m < cfg.Reverse.Rows; m++ {
				want += float64(cfg.Reverse.Data[m*cfg.Reverse.Stride+c]) * float64(u.Data[(i+m)*u.Stride+c])
			}
			want += float64(cfg.Skip[c]) * float64(u.Data[i*u.Stride+c])
			if d := math.Abs(float64(got.Data[i*got.Stride+c]) - want); !(d <= 3e-6*norm) {
				t.Fatalf("%s: token %d, channel %d is %v, want %v", name, i, c, got.Data[i*got.Stride+c], want)
			}
		}
	}
}

// TestBlockSize: a kernel half as long as the sequence or longer is never cut, nor is a
// sequence of few tokens, and no window is cut from more tokens than are there.
func TestBlockSize(t *testing.T) {
	for _, phases := range []bool{false, true} {
		for tokens := 1; tokens < 64<<20; tokens += 1 + tokens/3 {
			for overlap := 0; overlap <= tokens; overlap = 2*overlap + 1 {
				n := blockSize(tokens, overlap, phases)
				if n != 0 && (n >= tokens || n <= overlap || 2*overlap > tokens || tokens < 2*blockLeast) {
					t.Errorf("%d tokens that overlap by %d are cut in windows of %d", tokens, overlap, n)
				}
			}
		}
	}
}

// TestLongScratch: 28.8 million samples with 240,000 taps took 922 MB.
func TestLongScratch(t *testing.T) {
	const tokens, taps, most = 28_800_000, 240_000, 20 << 20
	c := mustConv(t, ConvConfig{Kernel: blas32.General{Rows: taps, Cols: 1, Stride: 1, Data: make([]float32, taps)}, Workers: 1})
	if n := c.ScratchBytes(tokens); n > most {
		t.Errorf("%d bytes, want %d at the most", n, most)
	}
	if err := c.Prepare(t.Context(), tokens); err != nil || c.Bytes() > 2*most {
		t.Errorf("keeps %d bytes, error %v", c.Bytes(), err)
	}
}

// BenchmarkShortKernel: transformed whole, these took 55, 40, 23 and 900 ms on a processor
// where they take 16, 29, 10 and 530.
func BenchmarkShortKernel(b *testing.B) {
	for _, s := range []struct{ n, taps, channels int }{{4 << 20, 64, 1}, {4 << 20, 4096, 1}, {256 << 10, 64, 16}, {28_800_000, 240_000, 1}} {
		b.Run(fmt.Sprintf("taps=%d/c=%d/n=%d", s.taps, s.channels, s.n), func(b *testing.B) {
			u := matrix(2, s.n, s.channels, 0)
			dst := clone(u)
			c := mustConv(b, ConvConfig{Kernel: matrix(1, s.taps, s.channels, 0)})
			if err := c.Forward(dst, u); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				c.Forward(dst, u)
			}
			b.ReportMetric(float64(c.ScratchBytes(s.n)), "scratch-bytes")
			b.ReportMetric(float64(s.n)*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}
