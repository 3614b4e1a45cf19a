package longmamba

import (
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa/isatest"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/ssm"
)

// TestRunPrompt: a prompt with a filter that looks at tokens one by one gives what a
// state's gives, and the other methods leave the steps that Apply leaves.
func TestRunPrompt(t *testing.T) {
	isatest.Run(t, func(t *testing.T) {
		const n = 100
		for name, b := range blocks(t) {
			c := table(t, testBlock(b, 1e-5))
			x, vanilla := random(1, n, b.Dim(), 1, 0), zeros(n, b.Channels())
			must(t, b.Run(t.Context(), &ssm.BlockCall{Dst: zeros(n, b.Dim()), X: x, Filter: ssm.RecordSteps(vanilla)}))
			for m := range methods {
				f := newFilter(t, c, FilterConfig{Method: m, All: true, TopK: 30, Response: 4})
				got, steps := zeros(n, b.Dim()), zeros(n, b.Channels())
				must(t, f.RunPrompt(t.Context(), b, &ssm.BlockCall{Dst: got, X: x, Filter: ssm.RecordSteps(steps)}))
				want := mat.Of(slices.Clone(vanilla.Data), n, b.Channels())
				must(t, f.Apply(0, want))
				same(t, name+", "+m.String(), steps.Data, want.Data)
				if m.causal() {
					st, y := value[*ssm.State](t)(b.NewState(ssm.StateConfig{Filter: f, Prompt: n})), zeros(n, b.Dim())
					must(t, b.Step(y, x, st))
					same(t, name+", "+m.String(), got.Data, y.Data)
				}
				r := value[[]ChannelReport](t)(Report(b, vanilla, steps))
				kept := 0
				for i := range n {
					if steps.Data[i*steps.Stride] != 0 {
						kept++
					}
				}
				if r[0].Kept != float64(kept)/n || !(r[0].Before <= r[0].After) || !(r[0].ReceptiveField > 0) {
					t.Errorf("%s, %v: %+v, of which %d are kept", name, m, r[0], kept)
				}
			}
			must(t, newFilter(t, c, FilterConfig{Method: ByBound}).RunPrompt(t.Context(), b, &ssm.BlockCall{Dst: zeros(0, b.Dim()), X: zeros(0, b.Dim())}))
			f := newFilter(t, c, FilterConfig{})
			st := value[*ssm.State](t)(b.NewState(ssm.StateConfig{}))
			must(t, st.Skip(3))
			wants(t, f.RunPrompt(t.Context(), b, &ssm.BlockCall{Dst: zeros(9, b.Dim()), X: zeros(9, b.Dim()), State: st}), ErrState, "longmamba: the state has seen 3 tokens or has a filter, want an empty one without")
			wants(t, f.RunPrompt(t.Context(), b, &ssm.BlockCall{Dst: zeros(9, b.Dim()), X: zeros(9, b.Dim()), Offsets: []int{0, 9}}), ErrCall, "longmamba: Offsets or States are given, want one sequence")
			wants(t, f.RunPrompt(t.Context(), b, &ssm.BlockCall{Dst: zeros(9, b.Dim()), X: zeros(9, 5)}), ErrShape, "longmamba: X has 5 columns, want Dim = 12")
			if err := (*Filter)(nil).RunPrompt(t.Context(), b, &ssm.BlockCall{Dst: zeros(9, b.Dim()), X: zeros(9, b.Dim()), Filter: ssm.ReplaySteps(zeros(3, b.Channels()))}); err == nil {
				t.Error("replayed steps that are not there")
			}
		}
	})
}

// TestDecimation: the largest are kept; and a scan that passes over tokens
// gives the others what it gives them alone.
func TestDecimation(t *testing.T) {
	d := value[*Decimation](t)(NewDecimation(DecimationConfig{Layers: []int{7, 2}, Base: 6, MinTokens: -1, Response: 1}))
	dt := mat.Of([]float32{5, 1, 4, 2, 2, 9, 8, 7, 6, 0}, 10, 1)
	keep := func(d *Decimation, layer int) []int { return value[[]int](t)(d.Keep(layer, dt)) }
	for layer, want := range map[int][]int{0: {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, 7: {0, 2, 5, 6, 7, 8, 9}, 2: {5, 6, 7, 9}} {
		if got := keep(d, layer); !slices.Equal(got, want) || d.Drops(layer) != (layer != 0) {
			t.Errorf("layer %d keeps %v, want %v", layer, got, want)
		}
	}
	if got := keep(value[*Decimation](t)(NewDecimation(DecimationConfig{Layers: []int{0}, Base: 1, MinTokens: 3})), 0); !slices.Equal(got, []int{5, 6, 7}) {
		t.Errorf("at least 3: %v", got)
	}
	if got := keep(value[*Decimation](t)(NewDecimation(DecimationConfig{Layers: []int{0}})), 0); len(got) != 10 {
		t.Errorf("2000 of 10: %v", got)
	}
	for text, cfg := range map[string]DecimationConfig{
		"longmamba: Base is -1, want 0 or more":                           {Base: -1},
		"longmamba: Beta is NaN, want a finite number above 0":            {Beta: math.NaN()},
		"longmamba: Response is -1, want 0 or more":                       {Response: -1},
		"longmamba: Layers[1] is 3, want 0 or more, and each layer once":  {Layers: []int{3, 3}},
		"longmamba: Layers[0] is -3, want 0 or more, and each layer once": {Layers: []int{-3}},
	} {
		_, err := NewDecimation(cfg)
		wants(t, err, ErrConfig, text)
	}
	_, err := d.Keep(7, blas32.General{Rows: 3, Cols: 2, Stride: 2})
	wants(t, err, ErrShape, "longmamba: dt is 3 x 2 with stride 2 but has only 0 elements")
}
