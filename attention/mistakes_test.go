package attention

import (
	"context"
	"errors"
	"math"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/mat"
)

// TestMistakes has each mistake match the sentinel that all packages give it, write
// nothing, and leave states as they were.
func TestMistakes(t *testing.T) {
	a := must(t, stateOp)
	other := must(t, Config{Heads: 4, KVHeads: 2, HeadDim: 16, Causal: true, Scale: 2})
	s, foreign := newState(t, a, StateConfig{}), newState(t, other, StateConfig{})
	x := tokens(a, 1, 3)
	dst := mat.New(3, 64)
	call := func(change func(c *Call)) *Call {
		c := &Call{Dst: dst, Q: x.q, K: []blas32.General{x.k}, V: []blas32.General{x.v}}
		change(c)
		return c
	}
	ctx := context.Background()
	ended, cancel := context.WithCancel(ctx)
	cancel()
	for name, c := range map[string]struct {
		kind error
		err  error
	}{
		"nil ctx":                {ErrCall, a.Run(nil, call(func(*Call) {}))},
		"nil call":               {ErrCall, a.Run(ctx, nil)},
		"Workers -1":             {ErrCall, a.Run(ctx, call(func(c *Call) { c.Workers = -1 }))},
		"Workers of a step":      {ErrCall, a.Run(ctx, call(func(c *Call) { c.State, c.Workers = s, 1<<16+1 }))},
		"Options":                {ErrCall, a.Run(ctx, call(func(c *Call) { c.Options = 3 }))},
		"Options of a step":      {ErrCall, a.Run(ctx, call(func(c *Call) { c.State, c.Options = s, &struct{}{} }))},
		"Offsets":                {ErrCall, a.Run(ctx, call(func(c *Call) { c.Offsets = []int{0, 2} }))},
		"Offsets of a step":      {ErrCall, a.Run(ctx, call(func(c *Call) { c.States, c.Offsets = []Past{s}, []int{1, 3} }))},
		"States without Offsets": {ErrCall, a.Run(ctx, call(func(c *Call) { c.States = []Past{s} }))},
		"StepBatch":              {ErrCall, a.StepBatch(dst, x.q, x.k, x.v, nil)},
		"no state":               {ErrState, a.Step(dst, x.q, x.k, x.v, nil)},
		"nil state":              {ErrState, a.Run(ctx, call(func(c *Call) { c.State = (*State)(nil) }))},
		"state twice":            {ErrState, a.Run(ctx, call(func(c *Call) { c.States, c.Offsets = []Past{s, s}, []int{0, 1, 3} }))},
		"foreign state":          {ErrState, a.Step(dst, x.q, x.k, x.v, foreign)},
		"state of another kind":  {ErrState, a.Run(ctx, call(func(c *Call) { c.State = alienState{s} }))},
		"nil state of Extra":     {ErrState, a.Run(ctx, call(func(c *Call) { c.Extra = []Extra{{States: []*State{nil}}} }))},
		"states of Extra":        {ErrCall, a.Run(ctx, call(func(c *Call) { c.Extra = []Extra{{States: []*State{s, s}}} }))},
		"Extra with its state":   {ErrState, a.Run(ctx, call(func(c *Call) { c.State, c.Extra = s, []Extra{{State: s}} }))},
		"Truncate beyond":        {ErrState, s.Truncate(1)},
		"Truncate below":         {ErrState, s.Truncate(-1)},
		"shape":                  {ErrShape, a.Forward(mat.New(3, 63), x.q, x.k, x.v)},
		"stats far away":         {ErrCall, must(t, Config{Heads: 4, KVHeads: 2, HeadDim: 16}).Run(ctx, call(func(c *Call) { c.Stats, c.KeyPos = new(Stats), []int64{math.MaxInt32} }))},
		"ended":                  {context.Canceled, a.Run(ended, call(func(*Call) {}))},
		"ended step":             {context.Canceled, a.Run(ended, call(func(c *Call) { c.State = s }))},
	} {
		if !errors.Is(c.err, c.kind) || c.kind == context.Canceled && c.err != context.Canceled {
			t.Errorf("%s: error %v, want %v", name, c.err, c.kind)
		}
	}
	for i, v := range dst.Data {
		if v != 0 {
			t.Fatalf("element %d was written", i)
		}
	}
	if s.Len() != 0 {
		t.Errorf("the state has %d tokens", s.Len())
	}
	for _, most := range []int{math.MaxInt >> 2, math.MaxInt} {
		if _, err := a.NewState(StateConfig{MaxTokens: most}); !errors.Is(err, ErrConfig) {
			t.Errorf("MaxTokens %d: error %v", most, err)
		}
		if _, err := a.NewPages(PagesConfig{PageTokens: most}); !errors.Is(err, ErrConfig) {
			t.Errorf("PageTokens %d: error %v", most, err)
		}
	}
}

// alienState is a Past that is no *State.
type alienState struct{ Past }
