package lm

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/mat"
)

// TestSource: what a source reads after going back is what a model reads from the beginning,
// of attention and recurrences together.
func TestSource(t *testing.T) {
	m, ctx := hybrid(t), context.Background()
	s, err := m.NewSource()
	must(t, err)
	r := rand.New(rand.NewPCG(8, 9))
	var text []int32
	for round := range 40 {
		keep := len(text)
		if round%3 > 0 {
			keep -= r.IntN(min(len(text), 5+round) + 1)
		}
		added := make([]int32, 1+r.IntN(6+round%2*50))
		for i := range added {
			added[i] = int32(r.IntN(m.vocab))
		}
		rows := r.IntN(len(added) + 1)
		text = append(text[:keep], added...)
		got := mat.New(rows, m.vocab)
		if round%7 == 0 {
			s = s.Clone()
		}
		must(t, s.Continue(ctx, got, keep, added))
		want := mat.New(len(text), m.vocab)
		must(t, m.Forward(want, text))
		near(t, "logits", got.Data, want.Data[(len(text)-rows)*m.vocab:], 1e-4)
	}
	if err := s.Continue(ctx, blas32.General{}, len(text)+1, []int32{1}); !errors.Is(err, subquad.ErrCall) {
		t.Errorf("beyond the text: error %v", err)
	}
	for _, logits := range []blas32.General{{Rows: -1}, {Rows: 2, Cols: m.vocab, Stride: m.vocab, Data: make([]float32, m.vocab)}, mat.New(2, m.vocab-1), mat.New(2, m.vocab+1), {Rows: 2}} {
		if err := s.Continue(ctx, logits, 0, []int32{1, 2, 3}); !errors.Is(err, subquad.ErrShape) {
			t.Errorf("logits of %d x %d, of %d numbers: error %v", logits.Rows, logits.Cols, len(logits.Data), err)
		}
	}
	if err := s.Continue(nil, blas32.General{}, 0, []int32{1}); !errors.Is(err, subquad.ErrCall) { //nolint:staticcheck // what is tested
		t.Errorf("a nil context: error %v", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.Continue(ended, blas32.General{}, 1, []int32{1}); err != context.Canceled {
		t.Errorf("a done context: error %v", err)
	}
	must(t, s.Continue(ctx, blas32.General{}, 0, text[:3]))
}
