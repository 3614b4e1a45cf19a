package dna

import (
	"fmt"
	"testing"
)

// large is hyenadna-large-1m.
var large = dims{dim: 256, layers: 8, inner: 1024, vocab: 16, maxLen: 1_000_002, order: 2, hidden: 64, inners: 2}

// TestLargeMemory: a million bases go through hyenadna-large-1m in 4 GiB, of which the runtime
// gets 2 percent.
func TestLargeMemory(t *testing.T) {
	m := large.random(1).model(t, Config{MaxLen: large.maxLen, Workers: 2, SpectraBytes: 1})
	// The grid of positions, as published checkpoints store it: layers share it.
	grid := int64(4 * (5 + 1) * large.maxLen)
	const most = 4 << 30 * 98 / 100
	weights, scratch := m.Bytes()+grid, m.ScratchBytes(1_000_000)
	if weights+scratch > most {
		t.Errorf("weights take %d bytes and a million bases %d, more than %d", weights, scratch, int64(most))
	}
	// Filters of one layer alone would be too much.
	if kept := int64(4 * large.dim * 1_000_000); weights+scratch+kept < most {
		t.Errorf("%d bytes are left", most-weights-scratch)
	}
	t.Logf("weights %.2f GiB, working memory %.2f", float64(weights)/(1<<30), float64(scratch)/(1<<30))
}

// BenchmarkBases is what a base costs in a layer of hyenadna-large-1m as sequences grow: with
// filters and spectra kept, and, of a million bases, with the filter computed by each call, as 4
// GiB allow. One layer of 8 is timed.
func BenchmarkBases(b *testing.B) {
	for _, c := range []struct {
		n    int
		keep int64
	}{{8192, 0}, {8192, 1}, {65536, 0}, {1_000_000, 1}, {1_000_000, 8 << 30}} {
		name := fmt.Sprintf("n=%d", c.n)
		if c.keep == 1 {
			name += "/filters=computed"
		}
		b.Run(name, func(b *testing.B) {
			if testing.Short() && c.n > 8192 {
				b.Skip("takes gigabytes: -short")
			}
			d := large
			d.layers = 1
			m := d.random(1).model(b, Config{MaxLen: d.maxLen, SpectraBytes: c.keep})
			call := &Call{Tokens: bases(1, c.n), LogLikelihood: make([]float32, c.n-1)}
			must(b, m.Run(b.Context(), call))
			for b.Loop() {
				must(b, m.Run(b.Context(), call))
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*c.n), "ns/base")
			b.ReportMetric(float64(b.N*c.n)/b.Elapsed().Seconds(), "tokens/s")
			b.ReportMetric(float64(m.Bytes()+m.ScratchBytes(c.n)), "bytes")
		})
	}
}
