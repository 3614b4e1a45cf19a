package cca

import (
	"context"
	"fmt"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
)

// BenchmarkCCA is Core-Context-Aware attention with a group of 16 and a window of
// 1024; exact is the library's exact causal attention, which takes minutes at
// 65536 tokens.
func BenchmarkCCA(b *testing.B) {
	const heads, d = 8, 64
	base := Config{Heads: heads, HeadDim: d, GroupSize: 16, Window: 1024}
	deep := base
	deep.Levels = maxLevels
	forward := func(cfg Config) func(b *testing.B) func(dst, q, k, v blas32.General) error {
		return func(b *testing.B) func(dst, q, k, v blas32.General) error { return mustCCA(b, cfg).Forward }
	}
	exact := func(b *testing.B) func(dst, q, k, v blas32.General) error {
		return must(b, attention.Config{Heads: heads, HeadDim: d, Causal: true}).Forward
	}
	for _, c := range []struct {
		prefix string
		make   func(b *testing.B) func(dst, q, k, v blas32.General) error
		n      []int
	}{
		{"", forward(base), []int{8192, 65536}},
		{"levels/", forward(deep), []int{8192, 65536, 1 << 20}},
		{"exact/", exact, []int{8192, 65536}},
	} {
		for _, n := range c.n {
			if testing.Short() && n > 8192 {
				continue
			}
			b.Run(fmt.Sprintf("%sh=%d/d=%d/n=%d", c.prefix, heads, d, n), func(b *testing.B) {
				long := n == 1<<20 || n == 1<<16 && c.prefix == "exact/"
				forward := c.make(b)
				q, k, v, dst := matrix(1, n, heads*d), matrix(2, n, heads*d), matrix(3, n, heads*d), zeroMatrix(n, heads*d)
				if !long { // warm up, where that does not take minutes
					if err := forward(dst, q, k, v); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportAllocs()
				for b.Loop() {
					if err := forward(dst, q, k, v); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
			})
		}
	}
}

// BenchmarkCCAStep is one token after n, taken back each time, with keys and values of a
// format and, where it says so, with a context that can be cancelled.
func BenchmarkCCAStep(b *testing.B) {
	const heads, d = 8, 64
	for _, x := range []struct {
		name   string
		levels int
		format asm.Format
		cancel bool
		n      int
	}{
		{"", 1, asm.Float32, false, 8192},
		{"", 1, asm.Float32, false, 65536},
		{"cancel/", 1, asm.Float32, true, 65536},
		{"int8/", 1, asm.Int8, false, 65536},
		{"", maxLevels, asm.Float32, false, 8192},
		{"", maxLevels, asm.Float32, false, 65536},
	} {
		if testing.Short() {
			x.n = 2048
		}
		b.Run(fmt.Sprintf("%slevels=%d/h=%d/d=%d/n=%d", x.name, x.levels, heads, d, x.n), func(b *testing.B) {
			n := x.n
			c := mustCCA(b, Config{Heads: heads, HeadDim: d, Levels: x.levels})
			s, err := c.NewState(StateConfig{MaxTokens: n + 1, Rollback: 1, Format: x.format})
			if err != nil {
				b.Fatal(err)
			}
			q, k, v := matrix(1, n, heads*d), matrix(2, n, heads*d), matrix(3, n, heads*d)
			if err := c.Step(zeroMatrix(n, heads*d), q, k, v, s); err != nil {
				b.Fatal(err)
			}
			ctx := context.Background()
			if x.cancel {
				var cancel func()
				ctx, cancel = context.WithCancel(ctx)
				defer cancel()
			}
			one := part(q, 0, 1)
			call := &attention.Call{Dst: zeroMatrix(1, heads*d), Q: one, K: []blas32.General{one}, V: []blas32.General{one}, State: s}
			step := func() {
				if err := c.Run(ctx, call); err != nil {
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
			b.ReportMetric(float64(s.Bytes())/1e6, "MB")
		})
	}
}
