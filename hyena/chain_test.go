package hyena

import (
	"fmt"
	"math"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/mat"
)

// TestChain runs 2 million samples through every operator that streams, in pieces, and wants
// the last ones as near to float64 as the first.
func TestChain(t *testing.T) {
	samples, piece := 2_000_000, 4099
	if testing.Short() {
		samples = 100_000
		t.Logf("%d samples and not 2 million: -short, of which all would take seconds", samples)
	}
	const channels, taps = 2, 1500
	k, modes := quiet(1, taps, channels), randomModes(t, 5, channels, 4)
	skip := make([]float32, channels)
	conv := mustConv(t, ConvConfig{Kernel: k})
	modal, err := NewModal(ModalConfig{Modes: modes, Skip: skip})
	if err != nil {
		t.Fatal(err)
	}
	partition := mustPartition(t, PartitionConfig{Kernel: k})
	signal, err := partition.NewState()
	if err != nil {
		t.Fatal(err)
	}
	convState, modalState := mustState(t, conv, StateConfig{}), mustState(t, modal, StateConfig{})
	s := make([]complex128, channels*modes.Modes()) // of the recurrence in float64
	past := mat.New(taps-1+64, channels)            // the last inputs, for sums in float64
	worst := map[string]*[3]float64{}               // of the first half, of the second; the largest output
	look := func(name string, at int, got, want float64) {
		if worst[name] == nil {
			worst[name] = new([3]float64)
		}
		w := worst[name]
		w[2*at/samples], w[2] = max(w[2*at/samples], math.Abs(got-want)), max(w[2], math.Abs(want))
	}
	for from := 0; from < samples; from += piece {
		n := min(piece, samples-from)
		x := matrix(uint64(from+1), n, channels, 0)
		y, z, w := mat.New(n, channels), mat.New(n, channels), mat.New(n, channels)
		for _, err := range []error{conv.Step(y, x, convState), modal.Step(z, x, modalState), partition.Step(w, x, signal)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		for c := range channels {
			for i := range n {
				sum, v := 0.0, complex(float64(mat.Row(x, i)[c]), 0)
				for j := range modes.Modes() {
					p, r := modes.Mode(c, j)
					at := &s[c*modes.Modes()+j]
					*at = *at*p + v
					sum += real(r * *at)
				}
				look("Modal", from+i, float64(mat.Row(z, i)[c]), sum)
			}
		}
		// Of the others some tokens of the piece, by the sum.
		if n > taps+64 {
			for _, i := range []int{taps, n / 2, n - 1} {
				for c := range channels {
					sum, late := 0.0, 0.0
					for m := range taps {
						tap := float64(mat.Row(k, m)[c])
						sum += tap * sample(x, past, i-m, c)
						late += tap * sample(x, past, i-m-partition.Latency(), c)
					}
					look("Conv", from+i, float64(mat.Row(y, i)[c]), sum)
					look("Partition", from+i, float64(mat.Row(w, i)[c]), late)
				}
			}
			mat.Copy(past, mat.Rows(x, n-past.Rows, n))
		}
	}
	for name, w := range worst {
		t.Logf("%s: off by %.2g in the first half, %.2g in the second, of %.2g", name, w[0], w[1], w[2])
		if w[1] > 2e-6*w[2] || w[1] > 3*w[0] {
			t.Errorf("%s drifts: %v", name, *w)
		}
	}
	if b := convState.Bytes(); b > 1<<20 {
		t.Errorf("the state of %d taps takes %d bytes after %d samples", taps, b, samples)
	}
}

// sample is that of x at i, or of those before it.
func sample(x, past blas32.General, i, c int) float64 {
	if i < 0 {
		return float64(mat.Row(past, past.Rows+i)[c])
	}
	return float64(mat.Row(x, i)[c])
}

// BenchmarkConvStep steps token by token through a convolution as long as the sequence; worst
// is what the longest of all steps takes.
func BenchmarkConvStep(b *testing.B) {
	const channels = 64
	for _, n := range []int{1 << 12, 1 << 14, 1 << 16} {
		b.Run(fmt.Sprintf("channels=%d/n=%d", channels, n), func(b *testing.B) {
			conv, x := mustConv(b, ConvConfig{Kernel: quiet(1, n, channels), Workers: 1}), matrix(2, n, channels, 0)
			st, y := mustState(b, conv, StateConfig{MaxTokens: n}), mat.New(1, channels)
			through := func() (worst float64) {
				for t := range n {
					begin := now()
					if err := conv.Step(y, mat.Rows(x, t, t+1), st); err != nil {
						b.Fatal(err)
					}
					worst = max(worst, now()-begin)
				}
				st.Reset()
				return worst
			}
			through()
			worst := math.Inf(1)
			for b.Loop() {
				worst = min(worst, through())
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
			b.ReportMetric(1e6*worst, "worst-us")
		})
	}
	b.Run(fmt.Sprintf("channels=%d/forward/n=%d", channels, 1<<16), func(b *testing.B) {
		conv, x := mustConv(b, ConvConfig{Kernel: quiet(1, 1<<16, channels), Workers: 1}), matrix(2, 1<<16, channels, 0)
		for b.Loop() {
			if err := conv.Forward(x, x); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(1<<16)*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
	})
}

// BenchmarkModalStep is a token of a modal convolution, and of StripedHyena's operator.
func BenchmarkModalStep(b *testing.B) {
	const channels, n = 4096, 8
	modes := randomModes(b, 1, channels, n)
	gated, err := NewGated(GatedConfig{Dim: channels, Workers: 1}, GatedWeights{Short: matrix(2, 3*channels, 3, 0), Modes: modes})
	if err != nil {
		b.Fatal(err)
	}
	for _, tokens := range []int{1, 512} {
		b.Run(fmt.Sprintf("gated/channels=%d/modes=%d/tokens=%d", channels, n, tokens), func(b *testing.B) {
			st, z, y := mustState(b, gated, StateConfig{}), matrix(3, tokens, 3*channels, 0), mat.New(tokens, channels)
			for b.Loop() {
				if err := gated.Step(y, z, st); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(tokens)*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}

// BenchmarkPartition is a stream of 48 kHz through a reverberation of 5 seconds: how many times
// faster than it sounds, and what of the time of a block the longest of all takes.
func BenchmarkPartition(b *testing.B) {
	const taps, rate = 240_000, 48_000
	for _, c := range []struct{ latency, largest, channels int }{{64, 0, 1}, {64, 0, 2}, {64, 4096, 1}, {256, 0, 1}, {1024, 1024, 1}} {
		name := fmt.Sprintf("latency=%d/taps=%d/channels=%d", c.latency, taps, c.channels)
		if c.largest > 0 {
			name += fmt.Sprintf("/largest=%d", c.largest)
		}
		b.Run(name, func(b *testing.B) {
			p := mustPartition(b, PartitionConfig{Kernel: quiet(1, taps, c.channels), Block: c.latency, Largest: c.largest})
			st, err := p.NewState()
			if err != nil {
				b.Fatal(err)
			}
			x, y := matrix(2, c.latency, c.channels, 0), mat.New(c.latency, c.channels)
			const blocks = 1 << 16
			through := func() (worst float64) {
				for range blocks / c.latency {
					begin := now()
					if err := p.Step(y, x, st); err != nil {
						b.Fatal(err)
					}
					worst = max(worst, now()-begin)
				}
				return worst
			}
			through()
			worst := math.Inf(1)
			for b.Loop() {
				worst = min(worst, through())
			}
			b.ReportMetric(float64(b.N)*blocks/rate/b.Elapsed().Seconds(), "x-realtime")
			b.ReportMetric(100*worst*rate/float64(c.latency), "worst-%")
		})
	}
}
