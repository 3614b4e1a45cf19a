package mamba

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/ssm"
	"github.com/subquad/subquad/ssm/longmamba"
)

// PrefillCall runs a whole prompt layer by layer.
type PrefillCall struct {
	// Tokens are the prompt.
	Tokens []int32
	// State is brought up to date; it must be empty and without a filter. nil keeps
	// nothing.
	State *State
	// Last, if it is given, is set to the logits [1, V] behind the last token.
	Last blas32.General
	// Filter is of any method, also of those that look at a whole prompt.
	Filter *longmamba.Filter
	// Decimate drops tokens behind some layers, for good: DeciMamba.
	Decimate *longmamba.Decimation
	// Workers is how many goroutines the call may use, 0 for the configuration's.
	Workers int
}

// Prefill runs a whole prompt, each layer over all tokens before the next: for methods
// that look at all steps of a layer before they choose. For those that do not, Run
// with a state's filter gives the same in memory that does not grow. It returns the
// indices of the tokens that have come through all layers.
//
// Working memory is 3 D floats for each token; for methods that look at a whole prompt
// a layer's mixer runs twice. A state counts dropped tokens as seen. Errors match
// ErrShape, ErrConfig, ssm.ErrConfig or longmamba.ErrCalibration, or are ctx.Err(); the
// state is then as it was.
func (m *Model) Prefill(ctx context.Context, call *PrefillCall) (kept []int, err error) {
	if err := m.checkPrefill(call); err != nil {
		return nil, err
	}
	n, dim := len(call.Tokens), m.cfg.Dim
	workers := parallel.Workers(first(call.Workers, m.cfg.Workers))
	s := &run{m: m, n: n, call: Call{Tokens: call.Tokens, Workers: workers}, workers: make([]worker, workers)}
	s.rData, s.xData = scratch.Floats(nil, n*dim), scratch.Floats(nil, n*dim)
	s.r, s.x = mat.Of(s.rData, n, dim), mat.Of(s.xData, n, dim)
	for t := range n {
		kept = append(kept, t)
	}
	if err := s.tokens(ctx, s.runEmbed); err != nil {
		return nil, err
	}
	states := m.newLayers()
	for s.layer = range m.layers {
		if kept, err = s.prefillLayer(ctx, call, states[s.layer], kept); err != nil {
			return nil, err
		}
	}
	if err := s.tokens(ctx, s.runFinish); err != nil {
		return nil, err
	}
	if given(call.Last) {
		if s.n == 0 {
			return nil, check.Errorf(ErrShape, "mamba: Last is wanted, but Decimate has dropped all of %d tokens", n)
		}
		m.lm.Forward(call.Last, mat.Rows(s.x, s.n-1, s.n))
	}
	if call.State != nil && n > 0 {
		copyLayers(call.State.layers, states)
		call.State.keep()
	}
	return kept, nil
}

// tokens runs a task for some of the tokens each.
func (s *run) tokens(ctx context.Context, task func(worker, i int)) error {
	return wrap(s.group.Run(ctx, s.call.Workers, (s.n+taskTokens-1)/taskTokens, task))
}

// prefillLayer takes the tokens that are left through a layer, and returns those that
// go on.
func (s *run) prefillLayer(ctx context.Context, call *PrefillCall, st *ssm.State, kept []int) ([]int, error) {
	mixer := s.m.layers[s.layer].mixer
	mixed := ssm.BlockCall{Dst: s.x, X: s.x, State: st, Workers: s.call.Workers}
	var filter *longmamba.Filter
	if call.Filter != nil {
		var err error
		if filter, err = call.Filter.Block(s.layer); err != nil {
			return nil, wrap(err)
		}
	}
	on := []int(nil) // those that go on, of the tokens that are left
	if call.Decimate != nil && call.Decimate.Drops(s.layer) && s.n > 0 {
		dt := zeroed(s.n, mixer.Channels())
		if err := mixer.Run(ctx, &ssm.BlockCall{Dst: zeroed(s.n, s.m.cfg.Dim), X: s.x, Filter: ssm.RecordSteps(dt), Workers: s.call.Workers}); err != nil {
			return nil, wrap(err)
		}
		var err error
		if on, err = call.Decimate.Keep(s.layer, dt); err != nil {
			return nil, wrap(err)
		}
		// The layer passes over the others: what the kept ones read is what it would be
		// without them, and they are dropped behind it.
		stays := make([]bool, s.n)
		for _, t := range on {
			stays[t] = true
		}
		mixed.Filter = func(position, _ int, dt []float32) {
			if !stays[position] {
				clear(dt)
			}
		}
	}
	if err := filter.RunPrompt(ctx, mixer, &mixed); err != nil {
		return nil, wrap(err)
	}
	if err := st.Skip(len(call.Tokens) - s.n); err != nil {
		return nil, wrap(err)
	}
	if on != nil {
		for i, t := range on {
			copy(row(s.r, i), row(s.r, t))
			copy(row(s.x, i), row(s.x, t))
			kept[i] = kept[t]
		}
		s.n, kept = len(on), kept[:len(on)]
		s.r, s.x = mat.Rows(s.r, 0, s.n), mat.Rows(s.x, 0, s.n)
	}
	return kept, s.tokens(ctx, s.runMLP)
}

func (m *Model) checkPrefill(c *PrefillCall) error {
	if err := m.check(&Call{Tokens: c.Tokens, State: c.State, Last: c.Last, Workers: c.Workers}); err != nil {
		return err
	}
	switch {
	case c.State != nil && (c.State.Len() != 0 || c.State.filtered()):
		return check.Errorf(ErrShape, "mamba: the state has seen %d tokens or has a filter, want an empty one without", c.State.Len())
	case c.Filter != nil && c.Filter.Blocks() != len(m.layers):
		return check.Errorf(ErrConfig, "mamba: Filter is of %d blocks, want %d, one for each layer", c.Filter.Blocks(), len(m.layers))
	}
	return nil
}

// filtered tells whether the state has a filter.
func (st *State) filtered() bool {
	for _, l := range st.layers {
		if l.Filtered() {
			return true
		}
	}
	return false
}
