package maelre

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention/approx"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/state/statetest"
)

func TestErrors(t *testing.T) {
	const d = 12
	nan := math.NaN()
	w := func(change func(*Weights)) Weights {
		w := weightsFor(d, 20, 2, 3)
		if change != nil {
			change(&w)
		}
		return w
	}
	for want, c := range map[string]struct {
		cfg Config
		w   Weights
	}{
		"maelre: Norm has 0 elements, want the width, 1 to 32768":            {Config{Heads: 3}, Weights{}},
		"maelre: Heads is 5, want a divisor of the width = 12":               {Config{Heads: 5}, w(nil)},
		"maelre: SwitchTokens is -1, want 0 or more":                         {Config{Heads: 3, SwitchTokens: -1}, w(nil)},
		"maelre: SwitchTokens together with Approximate":                     {Config{Heads: 3, SwitchTokens: 1, Approximate: func(int, int) bool { return true }}, w(nil)},
		"maelre: Ratios has 3 elements, want 1 or one for each block = 2":    {Config{Heads: 3, Ratios: []float64{0, 0, 0}}, w(nil)},
		"maelre: Ratios[1] is NaN, want 0 to 1":                              {Config{Heads: 3, Ratios: []float64{0, nan}}, w(nil)},
		"maelre: Ratios together with Schedule":                              {Config{Heads: 3, Ratios: []float64{0}, Schedule: func(int, int) int { return 0 }}, w(nil)},
		"maelre: MinTokens is -1, want 0 or more":                            {Config{Heads: 3, MinTokens: -1}, w(nil)},
		"maelre: Eps is NaN, want a positive number":                         {Config{Heads: 3, Eps: nan}, w(nil)},
		"maelre: Workers is -1, want 0 to 65536":                             {Config{Heads: 3, Workers: -1}, w(nil)},
		"maelre: Format is 7, want Float32, BFloat16, Int8 or Float16":       {Config{Heads: 3, Format: 7}, w(nil)},
		"maelre: Blocks[1].QKV has 35 rows, want 36":                         {Config{Heads: 3}, w(func(w *Weights) { w.Blocks[1].QKV.Rows-- })},
		"maelre: Blocks[0].Down has 20 columns, want the layer's input = 19": {Config{Heads: 3}, w(func(w *Weights) { w.Blocks[0].Up.Rows--; w.Blocks[0].UpBias = nil })},
		"maelre: Blocks[0].Norm2 has 0 elements, want its layer's rows = 12": {Config{Heads: 3}, w(func(w *Weights) { w.Blocks[0].Norm2 = nil })},
		"maelre: HeadBias has 2 elements, want its layer's rows = 3":         {Config{Heads: 3}, w(func(w *Weights) { w.HeadBias = w.HeadBias[:2] })},
	} {
		if _, err := New(c.cfg, c.w); !errors.Is(err, ErrConfig) || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	m := mustNew(t, Config{Heads: 3, Ratios: []float64{.5}}, w(nil))
	for want, change := range map[string]func(*Call){
		"maelre: X has 13 columns, want the width = 12":      func(c *Call) { c.X.Cols++ },
		"maelre: Pooled has 2 rows, want 1":                  func(c *Call) { c.Pooled = mat.New(2, d) },
		"maelre: Logits has 4 columns, want the classes = 3": func(c *Call) { c.Logits = mat.New(1, 4) },
		"maelre: Sizes has 3 elements, want the tokens = 20": func(c *Call) { c.Sizes = make([]float32, 3) },
		"maelre: Sizes[2] is 0, want a positive number":      func(c *Call) { c.Sizes = slices.Repeat([]float32{1, 1, 0, 1}, 5) },
		"maelre: Valid has 3 elements, want the tokens = 20": func(c *Call) { c.Valid = make([]bool, 3) },
		"maelre: Offsets runs backwards, from 5 to 3 at 2":   func(c *Call) { c.Offsets = []int{0, 5, 3, 20} },
		"maelre: Pooled shares elements with X":              func(c *Call) { c.Pooled = mat.Rows(c.X, 0, 1) },
	} {
		c := &Call{X: input(1, 20, d), Logits: mat.New(1, 3)}
		change(c)
		err := m.Run(context.Background(), c)
		if err == nil || err.Error() != want || errors.Is(err, ErrShape) == errors.Is(err, ErrCall) {
			t.Errorf("error %v, want %s", err, want)
		}
		if slices.ContainsFunc(c.Logits.Data, func(x float32) bool { return x != 0 }) {
			t.Errorf("%s: Logits was written", want)
		}
	}
	if err := m.Forward(blas32.General{}, input(1, 20, d)); !errors.Is(err, ErrShape) {
		t.Errorf("error %v of no dst", err)
	}
	bare := mustNew(t, Config{Heads: 3}, w(func(w *Weights) { w.Head = blas32.General{} }))
	if err := bare.Run(context.Background(), &Call{X: input(1, 5, d), Logits: mat.New(1, 3)}); !errors.Is(err, ErrCall) {
		t.Errorf("error %v of logits without a head", err)
	}
	call := &Call{X: input(1, 20, d)}
	for _, err := range []error{m.Run(nil, call), m.Run(context.Background(), nil), m.Run(context.Background(), &Call{X: call.X, Workers: -1})} {
		if !errors.Is(err, ErrCall) {
			t.Errorf("error %v of no context, no call or too few workers", err)
		}
	}
	for asked := 0; ; asked++ {
		err := m.Run(&statetest.Ending{Context: context.Background(), Left: asked}, &Call{X: call.X, Workers: 1})
		if err == nil {
			break
		}
		if err != context.Canceled {
			t.Fatalf("error %v of a context that is done after %d questions", err, asked)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := m.Run(ctx, &Call{X: input(1, 20, d)}); err != context.Canceled {
		t.Errorf("error %v", err)
	}
	wrong, err := approx.NewLinear(approx.LinearConfig{Heads: 1, HeadDim: 1})
	if err != nil {
		t.Fatal(err)
	}
	m = mustNew(t, Config{Heads: 3, Approximation: wrong}, w(nil))
	if err := m.Forward(mat.New(1, 3), input(1, 20, d)); !errors.Is(err, approx.ErrShape) {
		t.Errorf("error %v of an approximation for other heads", err)
	}
}
