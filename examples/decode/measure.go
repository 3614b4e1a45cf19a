package main

import (
	"context"
	"math"
	"math/rand/v2"
	"time"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/examples/internal/program"
)

// result is one way to keep keys and values.
type result struct {
	name   string
	points []point
}

// point is a length of the context.
type point struct {
	tokens      int
	step        time.Duration // of one token
	bytes, read int64         // held, and read for a token
	err         float64       // of an output, beside float32
}

func (p *point) rate() float64 { return 1 / p.step.Seconds() }

// chunk is how many tokens are appended at a time.
const chunk = 1024

// measure grows a state of each kind and times a token at powers of two.
func measure(ctx context.Context, o options) ([]*result, error) {
	att, err := attention.New(attention.Config{Heads: o.heads, KVHeads: o.kv, HeadDim: o.dim, Causal: true, Workers: o.workers})
	if err != nil {
		return nil, err
	}
	pages, err := att.NewPages(attention.PagesConfig{Format: asm.BFloat16})
	if err != nil {
		return nil, err
	}
	noise := random(chunk+64, o.kv*o.dim)
	q := random(1, o.heads*o.dim)
	var results []*result
	exact := map[int]blas32.General{}
	ways := []struct {
		name  string
		state attention.StateConfig
	}{
		{"float32", attention.StateConfig{}},
		{"bfloat16", attention.StateConfig{Format: asm.BFloat16}},
		{"bfloat16, paged", attention.StateConfig{Pages: pages}},
		{"int8", attention.StateConfig{Format: asm.Int8}},
		{"float32 ring", attention.StateConfig{Window: o.window, Keep: 4}},
	}
	policies := policies(o)
	o.progress.Begin("measuring", (len(ways)+len(policies))*o.context)
	for _, c := range ways {
		s, err := att.NewState(c.state)
		if err != nil {
			return nil, err
		}
		r := &result{name: c.name}
		for _, tokens := range lengths(o.context) {
			if err := fill(ctx, s, noise, tokens, o.progress); err != nil {
				return nil, err
			}
			p := point{tokens: tokens, bytes: s.Bytes(), read: int64(tokens) * att.StateBytes(attention.StateConfig{Format: c.state.Format}, 1)}
			switch {
			case c.state.Window > 0:
				p.read = p.read / int64(tokens) * int64(min(tokens, o.window+4))
			case c.state.Pages != nil:
				p.read = int64(tokens) * att.StateBytes(attention.StateConfig{Format: asm.BFloat16}, 1)
			}
			dst := blas32.General{Rows: 1, Cols: q.Cols, Stride: q.Cols, Data: make([]float32, q.Cols)}
			if p.step, err = time1(att, s, dst, q, rows(noise, 0, 1)); err != nil {
				return nil, err
			}
			if c.name == "float32" {
				exact[tokens] = dst
			}
			p.err = difference(dst, exact[tokens])
			r.points = append(r.points, p)
		}
		results = append(results, r)
		s.Reset()
	}
	for i := range policies {
		r, err := policies[i].measure(ctx, o, noise, q, exact)
		if err != nil {
			return nil, err
		}
		results = append(results, r)
	}
	o.progress.End()
	return results, nil
}

// fill appends noise to a state up to some tokens: another part of it for each chunk, another
// for values.
func fill(ctx context.Context, s interface {
	Len() int
	Append(k, v blas32.General) error
}, noise blas32.General, tokens int, progress *program.Progress) error {
	for s.Len() < tokens {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(chunk, tokens-s.Len())
		at := s.Len() / chunk % 32
		if err := s.Append(rows(noise, at, n), rows(noise, at+32, n)); err != nil {
			return err
		}
		progress.Add(n)
	}
	return nil
}

// lengths are the powers of two from 1024, and most.
func lengths(most int) (list []int) {
	for n := 1024; n < most; n *= 2 {
		list = append(list, n)
	}
	return append(list, most)
}

// time1 is the least time that one more token takes, in a few tries; it is taken
// back each time.
func time1(att *attention.Attention, s *attention.State, dst, q, kv blas32.General) (time.Duration, error) {
	n := s.Len()
	least := time.Duration(math.MaxInt64)
	for range 6 {
		begin := time.Now()
		if err := att.Step(dst, q, kv, kv, s); err != nil {
			return 0, err
		}
		least = min(least, max(time.Since(begin), 1))
		if err := s.Truncate(n); err != nil {
			return 0, err
		}
	}
	return least, nil
}

// difference is the root of the mean square of a - b, over that of b.
func difference(a, b blas32.General) float64 {
	sum, size := 0.0, 0.0
	for i, x := range b.Data {
		d := float64(a.Data[i]) - float64(x)
		sum, size = sum+d*d, size+float64(x)*float64(x)
	}
	return math.Sqrt(sum / size)
}

func random(n, cols int) blas32.General {
	m := blas32.General{Rows: n, Cols: cols, Stride: cols, Data: make([]float32, n*cols)}
	r := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range m.Data {
		m.Data[i] = float32(r.NormFloat64())
	}
	return m
}

func rows(m blas32.General, from, n int) blas32.General {
	m.Rows, m.Data = n, m.Data[from*m.Stride:]
	return m
}
