package kvcache

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// SelfInformation sets dst[t] to the surprise of token t of a turn in nats, -log P(token t
// | those before it), from the logits [tokens, vocabulary] after each token: those of
// token t are in row t-1. The first token has none to predict it and gets the largest
// surprise of the others; 0 where it is alone. Errors match ErrShape.
//
// SirLLM's published code takes row t-1 for token t-1.
func SelfInformation(dst []float32, logits blas32.General, tokens []int32) error {
	if err := check.Matrix(ErrShape, "kvcache", "logits", logits, len(tokens), logits.Cols, "vocabulary"); err != nil {
		return err
	}
	if err := check.Vector(ErrShape, "kvcache", "dst", dst, len(tokens), "tokens"); err != nil {
		return err
	}
	for t, id := range tokens {
		if id < 0 || int(id) >= logits.Cols {
			return check.Errorf(ErrShape, "kvcache: tokens[%d] is %d, want 0 to %d", t, id, logits.Cols-1)
		}
	}
	top := float32(0)
	for t := 1; t < len(tokens); t++ {
		row := mat.Row(logits, t-1)
		most, sum := math.Inf(-1), 0.0
		for _, x := range row {
			most = max(most, float64(x))
		}
		for _, x := range row {
			sum += math.Exp(float64(x) - most)
		}
		dst[t] = float32(most + math.Log(sum) - float64(row[tokens[t]]))
		top = max(top, dst[t])
	}
	if len(dst) > 0 {
		dst[0] = top
	}
	return nil
}
