package approx

import (
	"fmt"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/mat"
)

const benchHeads, benchDim, basedDim = 8, 64, 16

// bench times forward at several lengths; flop is for each token and head.
func bench(b *testing.B, flop float64, lengths []int, forward func(dst, q, k, v blas32.General) error) {
	benchKeys(b, flop, benchDim, lengths, forward)
}

// benchKeys is bench with another width of queries and keys.
func benchKeys(b *testing.B, flop float64, keyDim int, lengths []int, forward func(dst, q, k, v blas32.General) error) {
	for _, n := range lengths {
		b.Run(fmt.Sprintf("h=%d/d=%d/n=%d", benchHeads, keyDim, n), func(b *testing.B) {
			if testing.Short() && n > 4096 {
				b.Skip("long: not with -short")
			}
			const cols = benchHeads * benchDim
			keys := benchHeads * keyDim
			q, k, v, dst := normal(1, n, keys), normal(2, n, keys), normal(3, n, cols), mat.New(n, cols)
			if err := forward(dst, q, k, v); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := forward(dst, q, k, v); err != nil {
					b.Fatal(err)
				}
			}
			seconds := b.Elapsed().Seconds() / float64(b.N)
			b.ReportMetric(float64(n)/seconds, "tokens/s")
			b.ReportMetric(flop*benchHeads*float64(n)/seconds/1e9, "GFLOP/s")
		})
	}
}

var benchLengths = []int{4096, 16384, 65536}

func BenchmarkLinear(b *testing.B) {
	for _, causal := range []bool{false, true} {
		l := value[*Linear](b)(NewLinear(LinearConfig{Heads: benchHeads, HeadDim: benchDim, Causal: causal}))
		name, flop := "full", 4.0*benchDim*benchDim
		if causal { // the products within a chunk, of which half is not hidden
			name, flop = "causal", flop+2*chunkRows*benchDim
		}
		b.Run(name, func(b *testing.B) { bench(b, flop, benchLengths, l.Forward) })
	}
}

// BenchmarkLinearStep is one token after another.
func BenchmarkLinearStep(b *testing.B) {
	l := value[*Linear](b)(NewLinear(LinearConfig{Heads: benchHeads, HeadDim: benchDim, Causal: true}))
	st := value[*LinearState](b)(l.NewState(StateConfig{}))
	b.Run("full", func(b *testing.B) {
		bench(b, 4*benchDim*benchDim, []int{1}, func(dst, q, k, v blas32.General) error { return l.Step(dst, q, k, v, st) })
	})
}

func BenchmarkEfficient(b *testing.B) {
	e := value[*Efficient](b)(NewEfficient(EfficientConfig{Heads: benchHeads, HeadDim: benchDim}))
	bench(b, 4*benchDim*benchDim, benchLengths, e.Forward)
}

func BenchmarkXCA(b *testing.B) {
	x := value[*XCA](b)(NewXCA(XCAConfig{Heads: benchHeads, HeadDim: benchDim}))
	bench(b, 4*benchDim*benchDim, benchLengths, x.Forward)
}

func BenchmarkNystrom(b *testing.B) {
	for _, m := range []int{64, 256} {
		n := value[*Nystrom](b)(NewNystrom(NystromConfig{Heads: benchHeads, HeadDim: benchDim, Landmarks: m}))
		b.Run(fmt.Sprintf("m=%d", m), func(b *testing.B) { bench(b, float64(8*m*benchDim), benchLengths, n.Forward) })
	}
}

// BenchmarkPerformer is not causal as published and with a Stabilizer, and causal.
func BenchmarkPerformer(b *testing.B) {
	for _, cfg := range []PerformerConfig{{}, {Stabilizer: new(float32)}, {Stabilizer: new(float32), Causal: true}} {
		name := "published"
		cfg.Heads, cfg.HeadDim = benchHeads, benchDim
		p := value[*Performer](b)(NewPerformer(cfg))
		f := p.sums.width
		flop := float64(8 * f * benchDim)
		switch {
		case cfg.Causal: // the products within a chunk
			name = "causal"
			flop += float64(2*chunkRows*benchDim + 2*chunkRows*f)
		case cfg.Stabilizer != nil:
			name = "stabiliser"
		default:
			flop += float64(2 * f * benchDim)
		}
		b.Run(name, func(b *testing.B) { bench(b, flop, benchLengths, p.Forward) })
	}
}

// BenchmarkLinformer projects to the published 256 rows.
func BenchmarkLinformer(b *testing.B) {
	const rows = 256
	for _, n := range benchLengths[:2] { // E of the next takes half a gigabyte, twice
		if testing.Short() && n > 4096 {
			continue
		}
		l := value[*Linformer](b)(NewLinformer(LinformerConfig{Heads: benchHeads, HeadDim: benchDim, E: normal(4, benchHeads*rows, n)}))
		bench(b, 8*rows*benchDim, []int{n}, l.Forward)
	}
}

func BenchmarkMRA2(b *testing.B) {
	for _, pairs := range []int{4, 16} {
		m := value[*MRA2](b)(NewMRA2(MRA2Config{Heads: benchHeads, HeadDim: benchDim, PairsPerRow: pairs}))
		b.Run(fmt.Sprintf("pairs=%d", pairs), func(b *testing.B) {
			for _, n := range benchLengths {
				low := 6 * float64(n) / float64(m.cfg.Block*m.cfg.Block) * benchDim
				bench(b, float64(4*m.cfg.Block*pairs*benchDim)+low, []int{n}, m.Forward)
			}
		})
	}
}

// BenchmarkBased has the published width of keys.
func BenchmarkBased(b *testing.B) {
	op := value[*Based](b)(NewBased(BasedConfig{Heads: benchHeads, HeadDim: basedDim, ValueDim: benchDim}))
	benchKeys(b, float64(4*op.sums.width*benchDim+2*chunkRows*benchDim), basedDim, benchLengths, op.Forward)
}

// BenchmarkExact is exact attention, to compare with.
func BenchmarkExact(b *testing.B) {
	a := value[*attention.Attention](b)(attention.New(attention.Config{Heads: benchHeads, HeadDim: benchDim}))
	for _, n := range []int{4096, 16384} {
		bench(b, float64(4*n*benchDim), []int{n}, a.Forward)
	}
}
