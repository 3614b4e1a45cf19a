package merge

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/subquad/subquad/internal/state/statetest"
	"gonum.org/v1/gonum/blas/blas32"
)

// TestErrors: bad input is an error that says what is wrong, and the plan stays.
func TestErrors(t *testing.T) {
	metric := random(9, 9, 4)
	var p Plan
	must(t, p.SetIdentity(5))
	nan := float32(math.NaN())
	for _, c := range []struct {
		cfg  Config
		call Call
		kind error
		text string
	}{
		{Config{}, Call{R: 5}, ErrCall, "R asks for 5 tokens to merge away, but of sequence 0, of 9 tokens, at most 4 can"},
		{Config{}, Call{Counts: []int{9}}, ErrCall, "Counts asks for 9 tokens"},
		{Config{Method: PiToMe}, Call{R: 5}, ErrCall, "at most 4 can"},
		{Config{}, Call{R: -1}, ErrCall, "R is -1, want 0 or more"},
		{Config{}, Call{Ratio: 1.5}, ErrCall, "Ratio is 1.5, want 0 to 1"},
		{Config{}, Call{Ratio: math.NaN()}, ErrCall, "Ratio is NaN"},
		{Config{}, Call{R: 1, Ratio: 0.5}, ErrCall, "more than one of R, Counts and Ratio"},
		{Config{}, Call{Counts: []int{1, 2}}, ErrCall, "Counts has 2 elements, want one for each sequence = 1"},
		{Config{}, Call{Counts: []int{-1}}, ErrCall, "Counts[0] is -1"},
		{Config{}, Call{Above: &nan}, ErrCall, "Above is NaN"},
		{Config{}, Call{MinTokens: -1}, ErrCall, "MinTokens is -1"},
		{Config{}, Call{Workers: -1}, ErrCall, "Workers is -1"},
		{Config{}, Call{Protect: make([]bool, 8)}, ErrShape, "Protect has 8 elements, want the metric's rows = 9"},
		{Config{}, Call{Valid: make([]bool, 8)}, ErrShape, "Valid has 8 elements"},
		{Config{}, Call{Offsets: []int{0, 8}}, ErrCall, "Offsets ends with 8, want the number of rows = 9"},
		{Config{}, Call{Offsets: []int{0, 8, 7, 9}}, ErrCall, "Offsets runs backwards, from 8 to 7 at 2"},
		{Config{}, Call{Margin: nan}, ErrCall, "Margin is NaN"},
		{Config{Method: PiToMeText}, Call{Margin: 1}, ErrCall, "Margin is 1"},
		{Config{Method: PiToMe}, Call{Above: new(float32(0))}, ErrCall, "Above together with PiToMe"},
		{Config{Method: KTh}, Call{R: 1}, ErrCall, "together with KTh"},
		{Config{Method: KTh}, Call{Shift: true}, ErrCall, "Shift together with KTh"},
		{Config{Method: Grid, Height: 2, Width: 4}, Call{}, ErrShape, "a sequence has 9 tokens, want those of the grid = 8"},
		{Config{}, Call{Sources: []int{1}}, ErrCall, "Sources or Destinations together with ToMe"},
		{Config{Method: Given}, Call{Sources: []int{9}}, ErrCall, "Sources[0] is 9, want 0 to 8"},
		{Config{Method: Given}, Call{Sources: []int{1}, Destinations: []int{2, 1}}, ErrCall, "Destinations[1] is 1, which is there before"},
		{Config{}, Call{Workload: &Workload{PairFlop: math.NaN()}}, ErrCall, "Workload is"},
	} {
		c.call.Plan, c.call.Metric = &p, metric
		err := newMatcher(t, c.cfg).Run(context.Background(), &c.call)
		if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) || !strings.HasPrefix(err.Error(), "merge: ") {
			t.Errorf("error %v, want %q", err, c.text)
		}
	}
	m := newMatcher(t, Config{})
	if err := m.Match(nil, metric, 1); !errors.Is(err, ErrCall) {
		t.Errorf("no plan: error %v", err)
	}
	if err := m.Match(&p, random(1, 2, maxWidth+1), 1); !errors.Is(err, ErrShape) {
		t.Errorf("wide metric: error %v", err)
	}
	if err := m.Match(&p, blas32.General{Rows: 3, Cols: 4, Stride: 4, Data: make([]float32, 11)}, 1); !errors.Is(err, ErrShape) {
		t.Errorf("short metric: error %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := m.Run(ctx, &Call{Plan: &p, Metric: metric, R: 1}); err != context.Canceled {
		t.Errorf("cancelled: error %v", err)
	}
	for _, err := range []error{m.Run(nil, &Call{Plan: &p, Metric: metric}), m.Run(context.Background(), nil)} {
		if !errors.Is(err, ErrCall) {
			t.Errorf("error %v of no context or no call", err)
		}
	}
	if p.Len() != 5 {
		t.Error("a failed call changed the plan")
	}
}

func TestConfigErrors(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		text string
	}{
		{Config{Method: 99}, "Method is 99"},
		{Config{Method: -1}, "Method is -1"},
		{Config{Order: 2}, "Order is 2"},
		{Config{Method: Local, DistillToken: true}, "DistillToken together with Method Local"},
		{Config{Method: Given, ClassToken: true}, "ClassToken together with Method Given"},
		{Config{Window: -1}, "Window is -1"},
		{Config{Every: -1}, "Every is -1"},
		{Config{Method: Grid}, "Height is 0"},
		{Config{Method: Grid, Height: math.MaxInt, Width: 3}, "Height is"},
		{Config{CellWidth: -1}, "CellWidth -1"},
		{Config{Alpha: float32(math.NaN())}, "Alpha is NaN"},
		{Config{Workers: -2}, "Workers is -2"},
	} {
		if _, err := New(c.cfg); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("error %v, want %q", err, c.text)
		}
	}
}

// TestEnd: wherever a call is when its context is done, it returns the context's own error
// and leaves the plan; a long task asks too.
func TestEnd(t *testing.T) {
	metric := random(1, 300, 8)
	for _, cfg := range every() {
		if cfg.Method == Grid {
			cfg.Height, cfg.Width = 15, 20
		}
		m := newMatcher(t, cfg)
		for asked := 0; ; asked++ {
			var p Plan
			must(t, p.SetIdentity(3))
			c := callFor(cfg, &p, metric)
			c.Workers = 1
			err := m.Run(&statetest.Ending{Context: context.Background(), Left: asked}, &c)
			if err == nil {
				if asked < 4 {
					t.Errorf("%v: done after %d questions", cfg.Method, asked)
				}
				break
			}
			if err != context.Canceled || p.Tokens() != 3 {
				t.Fatalf("%v, asked %d times: error %v, a plan of %d tokens", cfg.Method, asked, err, p.Tokens())
			}
		}
	}
	const far = 100_000 // destinations of one task
	m := newMatcher(t, Config{Method: Given, Workers: 1})
	destinations := make([]int, far)
	for i := range destinations {
		destinations[i] = i + 1
	}
	var p Plan
	ctx := &statetest.Ending{Context: context.Background(), Left: 1 << 30}
	must(t, m.Run(ctx, &Call{Plan: &p, Metric: random(1, far+1, 1), R: 1, Sources: []int{0}, Destinations: destinations}))
	panels := m.tile.Panels(far)
	before := far/rowBlock + panels/packPanels // questions between the tasks before
	if asked := ctx.Asked(); asked < before+panels/lookPanels {
		t.Errorf("the context was asked %d times, want %d at least", asked, before+panels/lookPanels)
	}
}
