package asm

import (
	"fmt"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
)

func conv64(x, w blas32.General, bias []float32) []float64 {
	var out []float64
	for t := range x.Rows {
		for c := range x.Cols {
			var sum float64
			if bias != nil {
				sum = float64(bias[c])
			}
			for j := range w.Rows {
				if s := t - w.Rows + 1 + j; s >= 0 {
					sum += float64(w.Data[j*w.Stride+c]) * float64(x.Data[s*x.Stride+c])
				}
			}
			out = append(out, sum)
		}
	}
	return out
}

func TestDepthwiseConv(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, tokens := range []int{0, 1, 2, 7, 8, 9, 30} {
			for _, channels := range []int{1, 3, 4, 7, 16, 21, 520} {
				for _, taps := range []int{0, 1, 3, 4, 13} {
					name := fmt.Sprintf("%d tokens, %d channels, %d taps", tokens, channels, taps)
					x, w, bias := matrix(1, tokens, channels, 3), matrix(2, taps, channels, 2), random(3, channels)
					dst := blank(tokens, channels, 1)
					DepthwiseConv(dst, x, w, bias, blas32.General{})
					near(t, name, dense(dst), conv64(x, w, bias), 1e-5)
					gapsIntact(t, dst)
					none := blank(tokens, channels, 0)
					DepthwiseConv(none, x, w, nil, blas32.General{})
					near(t, name+", no bias", none.Data, conv64(x, w, nil), 1e-5)
				}
			}
		}
	})
}

// TestDepthwiseConvHistory cuts a sequence at every place: the second part,
// with the rows before it as history, has the bits of the whole.
func TestDepthwiseConvHistory(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const tokens, channels = 14, 19
		rows := func(m blas32.General, from, to int) blas32.General {
			return blas32.General{Rows: to - from, Cols: m.Cols, Stride: m.Stride, Data: m.Data[from*m.Stride:]}
		}
		for _, taps := range []int{1, 2, 4} {
			x, w, bias := matrix(1, tokens, channels, 3), matrix(2, taps, channels, 0), random(3, channels)
			whole := blank(tokens, channels, 0)
			DepthwiseConv(whole, x, w, bias, blas32.General{})
			for cut := taps - 1; cut < tokens; cut++ {
				part := blank(tokens-cut, channels, 0)
				DepthwiseConv(part, rows(x, cut, tokens), w, bias, rows(x, cut-taps+1, cut))
				if err := sameBits(part.Data, whole.Data[cut*channels:]); err != nil {
					t.Fatalf("%d taps, cut at %d: %v", taps, cut, err)
				}
			}
		}
	})
}

func TestDepthwiseConvGuarded(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		for _, low := range []bool{false, true} {
			for channels := 1; channels < 40; channels++ {
				g := func(rows int, seed uint64) blas32.General {
					data := guarded(t, rows*channels, low)
					copy(data, random(seed, len(data)))
					return blas32.General{Rows: rows, Cols: channels, Stride: channels, Data: data}
				}
				x, w, bias, dst := g(11, 1), g(3, 2), g(1, 3).Data, g(11, 4)
				DepthwiseConv(dst, x, w, bias, blas32.General{})
				near(t, fmt.Sprint(channels, " channels"), dst.Data, conv64(x, w, bias), 1e-5)
			}
		}
	})
}

func TestDepthwiseConvPanics(t *testing.T) {
	x, w := matrix(1, 5, 4, 0), matrix(2, 3, 4, 0)
	mustPanic(t, "asm: DepthwiseConv: history is 1 x 4, want 2 x 4", func() { DepthwiseConv(blank(5, 4, 0), x, w, nil, blank(1, 4, 0)) })
	mustPanic(t, "asm: DepthwiseConv: dst overlaps an input", func() { DepthwiseConv(x, x, w, nil, blas32.General{}) })
}

func BenchmarkDepthwiseConv(b *testing.B) {
	const tokens, channels, taps = 1024, 384, 3
	x, w, bias, dst := matrix(1, tokens, channels, 0), matrix(2, taps, channels, 0), random(3, channels), blank(tokens, channels, 0)
	for b.Loop() {
		DepthwiseConv(dst, x, w, bias, blas32.General{})
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*tokens*channels), "ns/element")
}
