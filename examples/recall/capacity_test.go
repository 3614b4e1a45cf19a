package main

import (
	"io"
	"testing"

	"github.com/subquad/subquad/internal/isa/isatest"
)

// TestCapacity: the delta rule recalls all of as many orthogonal keys as it has channels,
// which a sum of writings cannot.
func TestCapacity(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		results, err := capacity(t.Context(), options{sequences: 2, seed: 1}, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results {
			linear, erasing := r.recall[0], r.recall[2]
			if r.tokens <= stateDim && erasing != 1 {
				t.Errorf("the delta rule recalls %.3f of %d keys", erasing, r.tokens)
			}
			if r.tokens >= 16 && linear > 0.6 {
				t.Errorf("linear attention recalls %.3f of %d keys", linear, r.tokens)
			}
		}
	})
}
