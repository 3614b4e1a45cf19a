package lm

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/subquad/subquad"
)

// TestMaskedLogits: logits of -Inf, which models have for tokens that are not to be, make no
// NaN: what the large model rules out stays out, and what two small ones rule out changes
// nothing.
func TestMaskedLogits(t *testing.T) {
	none := float32(math.Inf(-1))
	large, small := []float32{1, none, 2, none}, []float32{0, 3, none, none}
	dst := make([]float32, 4)
	for _, c := range []struct {
		beta float64
		want []float32
	}{{0, small}, {1, large}, {0.5, []float32{0.5, none, none, none}}, {1.5, []float32{1.5, none, float32(math.Inf(1)), none}}} {
		if must(t, Contrast("lm", dst, large, small, 0, c.beta)); !slices.Equal(dst, c.want) {
			t.Errorf("beta %v: %v, want %v", c.beta, dst, c.want)
		}
	}
	if must(t, Proxy("lm", dst, large, small, small, 1)); !slices.Equal(dst, large) {
		t.Errorf("a proxy that is not tuned: %v, want %v", dst, large)
	}
	if must(t, Proxy("lm", dst, large, large, small, 0)); !slices.Equal(dst, large) {
		t.Errorf("a proxy of weight 0: %v, want %v", dst, large)
	}
	right, wrong := []float32{1, none, 0}, []float32{1, none, 0}
	if p, err := Critical("lm", right, wrong, 0); err != nil || !(math.Abs(p-math.E/(math.E+1)) <= 1e-12) {
		t.Errorf("a token that neither model has: %v, error %v", p, err)
	}
}

// TestDriftAlike: turns that are all alike but the last have no fit, whatever their size is;
// large ones have that of small ones.
func TestDriftAlike(t *testing.T) {
	for _, turns := range [][]float64{{0.1, 0.1, 0.1, 0.1, 0.2}, {1, 2, 3, math.NaN()}, {1, 2, 3, math.Inf(1)}, {1e200, -1e200, 1e200}} {
		if f, err := FitDrift("lm", turns); !errors.Is(err, subquad.ErrShape) {
			t.Errorf("%v: %v, error %v", turns, f, err)
		}
	}
	turns := []float64{1, 3, 2, 4, 2.5}
	want, err := FitDrift("lm", turns)
	must(t, err)
	for i := range turns {
		turns[i] += 1 << 30
	}
	got, err := FitDrift("lm", turns)
	must(t, err)
	if math.Abs(got.Slope-want.Slope) > 1e-6 || math.Abs(got.Equilibrium-want.Equilibrium-1<<30) > 1 {
		t.Errorf("%v, of small turns %v", got, want)
	}
}

// TestAcceptEdges: where there is nothing to draw from is an error, and a rejection whose rest
// is lost to rounding draws a token that the target has.
func TestAcceptEdges(t *testing.T) {
	if tokens, err := Accept("lm", nil, nil, nil, [][]float64{{}}, []float64{0}, false); !errors.Is(err, subquad.ErrShape) {
		t.Errorf("a row of no tokens: %v, error %v", tokens, err)
	}
	tokens, err := Accept("lm", nil, []int32{1}, [][]float64{{0, 1}}, [][]float64{{0, 1 - 0x1p-52}, {1, 0}}, []float64{1 - 0x1p-53, 0.5}, false)
	if err != nil || len(tokens) != 1 || tokens[0] != 1 {
		t.Errorf("%v, error %v", tokens, err)
	}
}
