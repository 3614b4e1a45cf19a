package mamba

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/lm"
	"github.com/subquad/subquad/internal/mat"
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
	// Last, if it is given, is set to the logits [1, V] after the last token.
	Last blas32.General
	// Filter is of any method, also of those that look at a whole prompt.
	Filter *longmamba.Filter
	// Decimate drops tokens after some layers, for good: DeciMamba.
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
// ErrShape, ErrConfig, ErrCall, ErrState or longmamba.ErrCalibration, or are ctx.Err();
// the state is then as it was.
func (m *Model) Prefill(ctx context.Context, call *PrefillCall) (kept []int, err error) {
	switch {
	case call == nil:
		return nil, check.Errorf(ErrCall, "mamba: call is nil")
	case call.State != nil && call.State.Len() == 0 && filtered(call.State, len(m.blocks)):
		return nil, check.Errorf(ErrState, "mamba: the state has a filter, want one without")
	case call.Filter != nil && call.Filter.Blocks() != len(m.blocks):
		return nil, check.Errorf(ErrConfig, "mamba: Filter is of %d blocks, want %d, one for each layer", call.Filter.Blocks(), len(m.blocks))
	}
	return m.stack.RunPrompt(ctx, &lm.PromptCall{
		Tokens: call.Tokens, State: call.State, Last: call.Last, Workers: call.Workers,
		Mix: func(ctx context.Context, layer int, x blas32.General, st lm.LayerState) ([]int, error) {
			return m.mixPrompt(ctx, call, layer, x, lm.RecurrentState(st))
		},
	})
}

// mixPrompt takes the tokens that are left through a block, and returns those that go on.
func (m *Model) mixPrompt(ctx context.Context, call *PrefillCall, layer int, x blas32.General, st *ssm.State) (on []int, err error) {
	block := m.blocks[layer]
	mixed := ssm.BlockCall{Dst: x, X: x, State: st, Workers: call.Workers}
	var filter *longmamba.Filter
	if call.Filter != nil {
		if filter, err = call.Filter.Block(layer); err != nil {
			return nil, err
		}
	}
	if call.Decimate != nil && call.Decimate.Drops(layer) && x.Rows > 0 {
		dt := mat.New(x.Rows, block.Channels())
		record := ssm.BlockCall{Dst: mat.New(x.Rows, x.Cols), X: x, Filter: ssm.RecordSteps(dt), Workers: call.Workers}
		if err := block.Run(ctx, &record); err != nil {
			return nil, err
		}
		if on, err = call.Decimate.Keep(layer, dt); err != nil {
			return nil, err
		}
		// The block passes over the others: what the kept ones read is what it would be
		// without them, and they are dropped after it.
		stays := make([]bool, x.Rows)
		for _, t := range on {
			stays[t] = true
		}
		mixed.Filter = func(position, _ int, dt []float32) {
			if !stays[position] {
				clear(dt)
			}
		}
	}
	if err := filter.RunPrompt(ctx, block, &mixed); err != nil {
		return nil, err
	}
	return on, st.Skip(len(call.Tokens) - x.Rows)
}

// filtered tells whether a state has a filter in one of its layers.
func filtered(st *State, layers int) bool {
	for i := range layers {
		layer, _ := st.LayerAt(i) // of a state that is not the model's, maybe none
		if l := lm.RecurrentState(layer); l != nil && l.Filtered() {
			return true
		}
	}
	return false
}
