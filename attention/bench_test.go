package attention

import (
	"context"
	"fmt"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat/mattest"
)

var random = mattest.Random

func general(data []float32, rows, cols int) blas32.General {
	return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: data}
}

func matrix(seed uint64, rows, cols int) blas32.General {
	return general(random(seed, rows*cols), rows, cols)
}

// BenchmarkRun is the causal call of BenchmarkForward with more and more asked of it.
func BenchmarkRun(b *testing.B) {
	const heads, d, n = 8, 64, 2048
	slopes := make(alibi, heads)
	for h := range slopes {
		slopes[h] = 1 / float64(h+1)
	}
	q, k, v := matrix(1, n, heads*d), matrix(2, n, heads*d), matrix(3, n, heads*d)
	plain := Config{Heads: heads, HeadDim: d, Causal: true}
	capped, biased, skipping := plain, plain, plain
	capped.Softcap = 30
	biased.Bias = slopes
	skipping.Bias, skipping.Skip = slopes, 1e-6
	for _, c := range []struct {
		name string
		cfg  Config
		call Call
	}{
		{"plain", plain, Call{}},
		{"logweights", plain, Call{LogWeights: matrix(5, n, 1)}},
		{"softcap", capped, Call{}},
		{"bias", biased, Call{}},
		{"bias-skip", skipping, Call{}},
		{"mass", plain, Call{Mass: matrix(6, n, heads)}},
	} {
		b.Run(fmt.Sprintf("%s/h=%d/d=%d/n=%d", c.name, heads, d, n), func(b *testing.B) {
			a, err := New(c.cfg)
			if err != nil {
				b.Fatal(err)
			}
			c.call.Dst, c.call.Q, c.call.K, c.call.V = matrix(4, n, heads*d), q, []blas32.General{k}, []blas32.General{v}
			if err := a.Run(context.Background(), &c.call); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := a.Run(context.Background(), &c.call); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(2*n*n*d*heads*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}

// benchmarkForward times whole sequences, in a precision.
func benchmarkForward(b *testing.B, prefix string, cfg Config, n int) {
	name, pairs := "full", float64(n)*float64(n)
	if cfg.Causal {
		name, pairs = "causal", pairs/2
	}
	if cfg.KVHeads > 0 {
		name = fmt.Sprintf("%s%s/h=%d/kv=%d/d=%d/n=%d", prefix, name, cfg.Heads, cfg.KVHeads, cfg.HeadDim, n)
	} else {
		name = fmt.Sprintf("%s%s/h=%d/d=%d/n=%d", prefix, name, cfg.Heads, cfg.HeadDim, n)
	}
	b.Run(name, func(b *testing.B) {
		if cfg.Precision != asm.Single && cfg.Precision.Unit() == "none" {
			b.Skip("not run: unit")
		}
		a, err := New(cfg)
		if err != nil {
			b.Fatal(err)
		}
		q := matrix(1, n, cfg.Heads*cfg.HeadDim)
		kv := a.cfg.KVHeads * cfg.HeadDim
		k, v, dst := matrix(2, n, kv), matrix(3, n, kv), matrix(4, n, q.Cols)
		if err := a.Forward(dst, q, k, v); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			a.Forward(dst, q, k, v)
		}
		flop := 4 * pairs * float64(q.Cols)
		b.ReportMetric(flop*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
	})
}

func BenchmarkForward(b *testing.B) {
	for _, c := range []struct {
		cfg Config
		n   int
	}{
		{Config{Heads: 8, HeadDim: 64, Causal: true}, 2048},
		{Config{Heads: 8, HeadDim: 128, Causal: true}, 2048},
		{Config{Heads: 8, HeadDim: 64}, 2048},
		{Config{Heads: 8, HeadDim: 128}, 2048},
		{Config{Heads: 8, HeadDim: 64, Causal: true}, 512},
		{Config{Heads: 8, KVHeads: 2, HeadDim: 64, Causal: true}, 2048},
	} {
		benchmarkForward(b, "", c.cfg, c.n)
	}
}

// BenchmarkForwardIn is BenchmarkForward in the precisions that a matrix unit is for.
func BenchmarkForwardIn(b *testing.B) {
	for _, p := range []asm.Precision{asm.BFloat16x1, asm.BFloat16x3, asm.BFloat16x6} {
		for _, causal := range []bool{true, false} {
			for _, d := range []int{64, 128} {
				benchmarkForward(b, p.String()+"/", Config{Heads: 8, HeadDim: d, Causal: causal, Precision: p}, 2048)
			}
		}
	}
}

// BenchmarkStep is one token after n others, taken back each time. The rate is
// that of reading the state.
func BenchmarkStep(b *testing.B) {
	const heads, kv, d = 32, 8, 128
	for _, c := range []struct {
		name  string
		state StateConfig
		n     int
	}{
		{"", StateConfig{}, 32768},
		{"bfloat16/", StateConfig{Format: asm.BFloat16}, 32768},
		{"float16/", StateConfig{Format: asm.Float16}, 32768},
		{"int8/", StateConfig{Format: asm.Int8}, 32768},
		{"int8-products/", StateConfig{Format: asm.Int8}, 32768},
		{"int8 turned/", StateConfig{Format: asm.Int8}, 32768}, // keys with a feature of 300
		{"paged/", StateConfig{}, 32768},
		{"", StateConfig{}, 4096},
		{"cancellable/", StateConfig{}, 4096},
	} {
		if testing.Short() {
			c.n = 1024
		}
		a, err := New(Config{Heads: heads, KVHeads: kv, HeadDim: d, Causal: true, Int8Products: c.name == "int8-products/"})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("%sh=%d/kv=%d/d=%d/n=%d", c.name, heads, kv, d, c.n), func(b *testing.B) {
			if c.name == "paged/" {
				pages, err := a.NewPages(PagesConfig{})
				if err != nil {
					b.Fatal(err)
				}
				c.state.Pages = pages
			} else {
				c.state.MaxTokens = c.n + 1
			}
			s, err := a.NewState(c.state)
			if err != nil {
				b.Fatal(err)
			}
			for n := 0; n < c.n; n += 1024 {
				x := matrix(uint64(n), 1024, kv*d)
				for i := 5; i < len(x.Data) && c.name == "int8 turned/"; i += d {
					x.Data[i] += 300
				}
				if err := s.Append(x, matrix(uint64(n+1), 1024, kv*d)); err != nil {
					b.Fatal(err)
				}
			}
			q, k, v, dst := matrix(1, 1, heads*d), matrix(2, 1, kv*d), matrix(3, 1, kv*d), matrix(4, 1, heads*d)
			ctx, cancel := context.Background(), context.CancelFunc(func() {})
			if c.name == "cancellable/" { // costs no more than one that cannot be
				ctx, cancel = context.WithCancel(ctx)
			}
			defer cancel()
			call := &Call{State: s, Dst: dst, Q: q, K: []blas32.General{k}, V: []blas32.General{v}}
			step := func() {
				if err := a.Run(ctx, call); err != nil {
					b.Fatal(err)
				}
				if err := s.Truncate(c.n); err != nil {
					b.Fatal(err)
				}
			}
			step()
			b.SetBytes(int64(c.n) * a.StateBytes(c.state, 1))
			b.ReportAllocs()
			for b.Loop() {
				step()
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}

// BenchmarkStepLatent is a token of latent attention after n others: all heads read one key, of
// which the value is a part.
func BenchmarkStepLatent(b *testing.B) {
	const heads, d, latent, n = 128, 576, 512, 4096
	for _, name := range []string{"int8", "int8-products"} {
		b.Run(fmt.Sprintf("%s/h=%d/d=%d/n=%d", name, heads, d, n), func(b *testing.B) {
			a, err := New(Config{Heads: heads, KVHeads: 1, HeadDim: d, ValueDim: latent, Causal: true, Int8Products: name != "int8"})
			if err != nil {
				b.Fatal(err)
			}
			s, err := a.NewState(StateConfig{Format: asm.Int8, SharedValues: true, MaxTokens: n + 1})
			if err != nil {
				b.Fatal(err)
			}
			if err := s.Append(matrix(1, n, d), blas32.General{}); err != nil {
				b.Fatal(err)
			}
			q, k, dst := matrix(2, 1, heads*d), matrix(3, 1, d), matrix(4, 1, heads*latent)
			step := func() {
				if err := a.Step(dst, q, k, blas32.General{}, s); err != nil {
					b.Fatal(err)
				}
				if err := s.Truncate(n); err != nil {
					b.Fatal(err)
				}
			}
			step()
			b.ReportAllocs()
			for b.Loop() {
				step()
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}

// BenchmarkSelect is a step of one token that reads 2,688 of 65,536 others, in runs of n.
// Runs of 64 are read where they stand, single tokens gathered.
func BenchmarkSelect(b *testing.B) {
	const heads, kv, d, tokens, chosen = 32, 8, 128, 65536, 2688
	a, err := New(Config{Heads: heads, KVHeads: kv, HeadDim: d, Causal: true, Workers: 1})
	if err != nil {
		b.Fatal(err)
	}
	for _, format := range []asm.Format{asm.Float32, asm.Int8} {
		s, err := a.NewState(StateConfig{MaxTokens: tokens + 1, Format: format})
		if err != nil {
			b.Fatal(err)
		}
		for n := 0; n < tokens; n += 1024 {
			if err := s.Append(matrix(uint64(n), 1024, kv*d), matrix(uint64(n+1), 1024, kv*d)); err != nil {
				b.Fatal(err)
			}
		}
		for _, run := range []int{1, 2, 4, 16, 64} {
			b.Run(fmt.Sprintf("%v/h=%d/kv=%d/d=%d/n=%d/run=%d", format, heads, kv, d, tokens, run), func(b *testing.B) {
				var list Selection
				for i := range chosen / run {
					at := i*(tokens/(chosen/run)) + i%7
					list = append(list, Run{at, at + run})
				}
				list = append(list, Run{tokens, tokens + 1})
				call := &Call{State: s, Dst: matrix(4, 1, heads*d), Q: matrix(1, 1, heads*d), K: []blas32.General{matrix(2, 1, kv*d)}, V: []blas32.General{matrix(3, 1, kv*d)}, Select: []Selection{list}}
				b.ReportAllocs()
				for b.Loop() {
					if err := a.Run(context.Background(), call); err != nil {
						b.Fatal(err)
					}
					if err := s.Truncate(tokens); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(b.Elapsed().Seconds()*1e9/float64(b.N)/chosen/kv, "ns/token")
			})
		}
	}
}
