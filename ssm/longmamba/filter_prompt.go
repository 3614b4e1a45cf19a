package longmamba

import (
	"context"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/ssm"
)

// Block returns the filter of one block, for its states. Errors match ErrConfig.
func (f *Filter) Block(block int) (*Filter, error) {
	if err := f.cal.checkBlock(block); err != nil {
		return nil, err
	}
	cal := *f.cal
	cal.Tables = cal.Tables[block : block+1]
	return &Filter{cfg: f.cfg, cal: &cal, blocks: f.blocks[block : block+1]}, nil
}

// Blocks returns how many blocks the filter is for.
func (f *Filter) Blocks() int { return len(f.blocks) }

// Bind implements ssm.FilterSource, for filters of one block: a nil one is no filter.
// Errors match ErrCalibration where the calibration is of another operator, and else
// ErrConfig.
func (f *Filter) Bind(op ssm.Identity, prompt int) (ssm.DeltaFilter, error) {
	if f == nil {
		return nil, nil
	}
	if err := f.checkOperator(op); err != nil {
		return nil, err
	}
	return f.Delta(0, prompt)
}

// checkOperator returns an error unless f is of one block, and that is op.
func (f *Filter) checkOperator(op ssm.Identity) error {
	if len(f.blocks) != 1 {
		return check.Errorf(ErrConfig, "longmamba: Filter is of %d blocks, want 1: that of Filter.Block", len(f.blocks))
	}
	t := &f.cal.Tables[0]
	switch {
	case len(t.LogDecay) != op.Channels:
		return check.Errorf(ErrCalibration, "longmamba: the calibration is of %d channels, a %s has %d", len(t.LogDecay), op.Name, op.Channels)
	case t.Fingerprint != 0 && t.Fingerprint != op.Fingerprint:
		return check.Errorf(ErrCalibration, "longmamba: the calibration is of another operator than this %s, or of other weights", op.Name)
	}
	return nil
}

// RunPrompt is block.Run for a whole prompt with the filter, which is of one block and
// of any method; Filter of the call comes after it. A nil filter is none. Methods that
// look at a whole prompt take it through the block twice, and working memory for all
// its tokens. The call has one sequence; its state, if it has one, is empty and without
// a filter. Errors match those of Run, ErrConfig, ErrShape, ErrCall, ErrState or ErrCalibration.
func (f *Filter) RunPrompt(ctx context.Context, block ssm.Block, call *ssm.BlockCall) error {
	if err := check.Call("longmamba", ctx, call != nil); err != nil {
		return err
	}
	if block == nil {
		return check.Errorf(ErrCall, "longmamba: block is nil")
	}
	if f == nil {
		return check.Named("longmamba", block.Run(ctx, call))
	}
	if err := f.checkOperator(block.Identity()); err != nil {
		return err
	}
	switch {
	case call.Offsets != nil || call.States != nil:
		return check.Errorf(ErrCall, "longmamba: Offsets or States are given, want one sequence")
	case call.State != nil && (call.State.Len() != 0 || call.State.Filtered()):
		return check.Errorf(ErrState, "longmamba: the state has seen %d tokens or has a filter, want an empty one without", call.State.Len())
	}
	if err := check.Matrix(ErrShape, "longmamba", "X", call.X, -1, block.Dim(), "Dim"); err != nil {
		return err
	}
	n := call.X.Rows
	if n == 0 {
		return check.Named("longmamba", block.Run(ctx, call))
	}
	var filter ssm.DeltaFilter
	if f.cfg.Method.causal() {
		var err error
		if filter, err = f.Delta(0, n); err != nil {
			return err
		}
	} else {
		dt := mat.New(n, block.Channels())
		if err := block.Run(ctx, &ssm.BlockCall{Dst: mat.New(n, block.Dim()), X: call.X, Filter: ssm.RecordSteps(dt), Workers: call.Workers}); err != nil {
			return check.Named("longmamba", err)
		}
		if err := f.Apply(0, dt); err != nil {
			return err
		}
		filter = ssm.ReplaySteps(dt)
	}
	c := *call
	c.Filter = ssm.ChainFilters(filter, call.Filter)
	return check.Named("longmamba", block.Run(ctx, &c))
}
