package merge

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention/approx"
	"github.com/subquad/subquad/internal/mat"
)

func TestMAELREErrors(t *testing.T) {
	const d = 12
	nan := math.NaN()
	w := func(change func(*MAELREWeights)) MAELREWeights {
		w := maelreWeights(d, 20, 2, 3)
		if change != nil {
			change(&w)
		}
		return w
	}
	for want, c := range map[string]struct {
		cfg MAELREConfig
		w   MAELREWeights
	}{
		"merge: NormWeight has 0 elements, want the width, 1 to 32768":            {MAELREConfig{Heads: 3}, MAELREWeights{}},
		"merge: Heads is 5, want a divisor of the width = 12":                     {MAELREConfig{Heads: 5}, w(nil)},
		"merge: SwitchTokens is -1, want 0 or more":                               {MAELREConfig{Heads: 3, SwitchTokens: -1}, w(nil)},
		"merge: SwitchTokens together with Approximate":                           {MAELREConfig{Heads: 3, SwitchTokens: 1, Approximate: func(int, int) bool { return true }}, w(nil)},
		"merge: Ratios has 3 elements, want 1 or one for each block = 2":          {MAELREConfig{Heads: 3, Ratios: []float64{0, 0, 0}}, w(nil)},
		"merge: Ratios[1] is NaN, want 0 to 1":                                    {MAELREConfig{Heads: 3, Ratios: []float64{0, nan}}, w(nil)},
		"merge: Ratios together with Schedule":                                    {MAELREConfig{Heads: 3, Ratios: []float64{0}, Schedule: func(int, int) int { return 0 }}, w(nil)},
		"merge: MinTokens is -1, want 0 or more":                                  {MAELREConfig{Heads: 3, MinTokens: -1}, w(nil)},
		"merge: Eps is NaN, want a positive number":                               {MAELREConfig{Heads: 3, Eps: float32(nan)}, w(nil)},
		"merge: Workers is -1, want 0 or more":                                    {MAELREConfig{Heads: 3, Workers: -1}, w(nil)},
		"merge: Format is 7, want Float32, BFloat16, Int8 or Float16":             {MAELREConfig{Heads: 3, Format: 7}, w(nil)},
		"merge: Blocks[1].QKV has 35 rows, want 36":                               {MAELREConfig{Heads: 3}, w(func(w *MAELREWeights) { w.Blocks[1].QKV.Rows-- })},
		"merge: Blocks[0].Down has 20 columns, want the layer's input = 19":       {MAELREConfig{Heads: 3}, w(func(w *MAELREWeights) { w.Blocks[0].Up.Rows--; w.Blocks[0].UpBias = nil })},
		"merge: Blocks[0].Norm2Weight has 0 elements, want its layer's rows = 12": {MAELREConfig{Heads: 3}, w(func(w *MAELREWeights) { w.Blocks[0].Norm2Weight = nil })},
		"merge: HeadBias has 2 elements, want its layer's rows = 3":               {MAELREConfig{Heads: 3}, w(func(w *MAELREWeights) { w.HeadBias = w.HeadBias[:2] })},
	} {
		if _, err := NewMAELRE(c.cfg, c.w); !errors.Is(err, ErrConfig) || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	m := mustMAELRE(t, MAELREConfig{Heads: 3, Ratios: []float64{.5}}, w(nil))
	for want, change := range map[string]func(*MAELRECall){
		"merge: X has 13 columns, want the width = 12":        func(c *MAELRECall) { c.X.Cols++ },
		"merge: Pooled has 2 rows, want 1":                    func(c *MAELRECall) { c.Pooled = zeros(2, d) },
		"merge: Logits has 4 columns, want the classes = 3":   func(c *MAELRECall) { c.Logits = zeros(1, 4) },
		"merge: Sizes has 3 elements, want the tokens = 20":   func(c *MAELRECall) { c.Sizes = make([]float32, 3) },
		"merge: size[2] is 0, want a positive number":         func(c *MAELRECall) { c.Sizes = slices.Repeat([]float32{1, 1, 0, 1}, 5) },
		"merge: Valid has 3 elements, want the tokens = 20":   func(c *MAELRECall) { c.Valid = make([]bool, 3) },
		"merge: Offsets[2] is 3, less than the one before it": func(c *MAELRECall) { c.Offsets = []int{0, 5, 3, 20} },
		"merge: Pooled shares elements with X":                func(c *MAELRECall) { c.Pooled = mat.Rows(c.X, 0, 1) },
	} {
		c := &MAELRECall{X: maelreInput(1, 20, d), Logits: zeros(1, 3)}
		change(c)
		err := m.Run(context.Background(), c)
		if err == nil || err.Error() != want || errors.Is(err, ErrShape) == errors.Is(err, ErrCall) {
			t.Errorf("error %v, want %s", err, want)
		}
		if slices.ContainsFunc(c.Logits.Data, func(x float32) bool { return x != 0 }) {
			t.Errorf("%s: Logits was written", want)
		}
	}
	if err := m.Forward(blas32.General{}, maelreInput(1, 20, d)); !errors.Is(err, ErrShape) {
		t.Errorf("error %v of no dst", err)
	}
	bare := mustMAELRE(t, MAELREConfig{Heads: 3}, w(func(w *MAELREWeights) { w.Head = blas32.General{} }))
	if err := bare.Run(context.Background(), &MAELRECall{X: maelreInput(1, 5, d), Logits: zeros(1, 3)}); !errors.Is(err, ErrCall) {
		t.Errorf("error %v of logits without a head", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := m.Run(ctx, &MAELRECall{X: maelreInput(1, 20, d)}); err != context.Canceled {
		t.Errorf("error %v", err)
	}
	wrong, err := approx.NewLinear(approx.LinearConfig{Heads: 1, HeadDim: 1})
	if err != nil {
		t.Fatal(err)
	}
	m = mustMAELRE(t, MAELREConfig{Heads: 3, Approximation: wrong}, w(nil))
	if err := m.Forward(zeros(1, 3), maelreInput(1, 20, d)); !errors.Is(err, approx.ErrShape) {
		t.Errorf("error %v of an approximation for other heads", err)
	}
}
