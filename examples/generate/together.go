package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"github.com/subquad/subquad/attention/transformer"
	"github.com/subquad/subquad/examples/internal/language"
)

// byBytes writes a text byte by byte, with exact probabilities: the prompt may end within a
// token.
func byBytes(ctx context.Context, m *language.Model, o options, stdout, stderr io.Writer) error {
	b, err := m.ByBytes()
	if err != nil {
		return err
	}
	s, err := b.NewStream(ctx)
	if err != nil {
		return err
	}
	if err := s.Feed(ctx, []byte(o.prompt)...); err != nil {
		return err
	}
	if _, err := io.WriteString(stdout, o.prompt); err != nil {
		return err
	}
	random, bits, begin, n := rand.New(rand.NewPCG(o.generate.Seed, 0)), 0.0, time.Now(), 0
	for ; n < o.generate.MaxTokens; n++ {
		next, err := s.Next(ctx)
		if err != nil {
			return err
		}
		at := drawn(next, o.generate.Temperature, o.generate.TopP, random.Float64())
		if at >= 256 { // a special token: the text ends
			break
		}
		bits -= math.Log2(next[at])
		if _, err := stdout.Write([]byte{byte(at)}); err != nil {
			return err
		}
		if err := s.Feed(ctx, byte(at)); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(stderr, "\n\n%d bytes, %.0f a second, %.3f bits each; %d sequences of tokens cover the text\n", n, float64(n)/time.Since(begin).Seconds(), bits/float64(max(n, 1)), s.Covers())
	return err
}

// drawn draws a symbol: p to the power of 1/temperature, the likeliest that together have topP
// (0: all). Below a temperature of 0.1 it is the likeliest.
func drawn(p []float64, temperature, topP, random float64) int {
	const floor, coldest = 1e-7, 0.1
	order := make([]int, len(p))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case p[a] > p[b]:
			return -1
		case p[a] < p[b]:
			return 1
		}
		return 0
	})
	if temperature < coldest {
		return order[0]
	}
	weights, all := make([]float64, len(p)), 0.0
	for _, i := range order {
		if p[i] > 0 {
			weights[i] = math.Pow(p[i]+floor, 1/temperature)
		}
		all += weights[i]
	}
	kept := all
	if topP > 0 {
		kept = 0
		for j, i := range order {
			if kept > topP*all {
				order = order[:j]
				break
			}
			kept += weights[i]
		}
	}
	for _, i := range order {
		if random -= weights[i] / kept; random < 0 {
			return i
		}
	}
	return order[len(order)-1]
}

// drafter returns what -draft names, for a model.
func drafter(m *language.Model, o options) (transformer.Drafter, error) {
	if _, missing := os.Stat(o.draft); missing != nil {
		switch o.draft {
		case "near":
			return transformer.Near{Keep: 4, Recent: 512}, nil
		case "lookup":
			return transformer.Lookup{}, nil
		}
	}
	small, _, err := open(o.draft, o.open)
	if err != nil {
		return nil, err
	}
	source, err := small.NewSource()
	if err != nil {
		return nil, fmt.Errorf("-draft: %w", err)
	}
	if n := m.Words.Size(); source.Vocab() < n {
		return nil, fmt.Errorf("-draft %s: it has %d tokens, and the model that writes %d: want a smaller model of the same tokens", o.draft, source.Vocab(), n)
	}
	return &transformer.ModelDraft{Source: source}, nil
}
