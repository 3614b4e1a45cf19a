package main

import (
	"context"
	"fmt"
	"math"

	"github.com/subquad/subquad/examples/internal/language"
	"github.com/subquad/subquad/examples/internal/program"
)

// score returns the mean bits per token of a text, of which each window is read
// from an empty state; a window's last token predicts the next window's first. The
// first token of all is not predicted. n is how many are.
func score(ctx context.Context, m *language.Model, text string, window int, p *program.Progress) (bits float64, n int, err error) {
	var tokens []int32
	if text != "" {
		if tokens, err = m.Words.Encode(text); err != nil {
			return 0, 0, err
		}
	}
	if len(tokens) < 2 {
		return 0, 0, fmt.Errorf("a text of %d tokens, want 2 or more", len(tokens))
	}
	p.Begin("scoring", len(tokens)-1)
	defer p.End()
	var sum float64
	for from := 0; from < len(tokens)-1; from += window {
		to := min(from+window, len(tokens)-1)
		likely := make([]float32, to-from)
		if err := m.LogLikelihood(ctx, likely, tokens[from:to], tokens[from+1:to+1]); err != nil {
			return 0, 0, err
		}
		for _, v := range likely {
			sum += float64(v)
		}
		p.Add(to - from)
	}
	n = len(tokens) - 1
	return -sum / math.Ln2 / float64(n), n, nil
}
