package ssm

import (
	"context"

	"github.com/subquad/subquad/internal/check"
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

// SetFilter gives the state another filter, of one block, for a prompt of so many
// tokens, as StateConfig does; nil for none. It is how a state that was stored, which
// is without its filter, gets it back. After an error, which matches ErrCalibration
// where the filter is another model's and else ErrConfig or ErrShape, the state is as
// it was.
func (st *State) SetFilter(f *Filter, prompt int) error {
	delta, err := st.deltaFilter(f, prompt)
	if err != nil {
		return err
	}
	st.filter = delta
	return nil
}

// Filtered tells whether the state has a filter that may change a step.
func (st *State) Filtered() bool { return st.filter != nil }

func (st *State) deltaFilter(f *Filter, prompt int) (DeltaFilter, error) {
	k := st.kind
	switch {
	case k == nil:
		return nil, check.Errorf(ErrShape, "ssm: the state was not made by NewState")
	case prompt < 0 || prompt > maxLength:
		return nil, check.Errorf(ErrConfig, "ssm: Prompt is %d, want 0 to %d", prompt, maxLength)
	case f == nil:
		return nil, nil
	}
	if err := k.checkFilter(f); err != nil {
		return nil, err
	}
	return f.Delta(0, prompt)
}

// checkFilter returns an error unless f is of one block, and that is k.
func (k *kind) checkFilter(f *Filter) error {
	switch {
	case k.channels == 0:
		return check.Errorf(ErrConfig, "ssm: Filter is given, but a %s has no filter of its steps", k.name)
	case len(f.blocks) != 1:
		return check.Errorf(ErrConfig, "ssm: Filter is of %d blocks, want 1: that of Filter.Block", len(f.blocks))
	}
	t := &f.cal.Tables[0]
	switch {
	case len(t.LogDecay) != k.channels:
		return check.Errorf(ErrCalibration, "ssm: the calibration is of %d channels, a %s has %d", len(t.LogDecay), k.name, k.channels)
	case t.Fingerprint != 0 && t.Fingerprint != k.hash:
		return check.Errorf(ErrCalibration, "ssm: the calibration is of another operator than this %s, or of other weights", k.name)
	}
	return nil
}

// RunPrompt is Run for a whole prompt with a filter of one block, of any method, and
// Filter of the call behind it. Methods that look at a whole prompt take it through
// the block twice, and working memory for all its tokens. The call has one sequence;
// its state, if it has one, is empty and without a filter. Errors match those of Run,
// ErrConfig or ErrCalibration.
func (b *block) RunPrompt(ctx context.Context, call *BlockCall, f *Filter) error {
	if f == nil {
		return b.Run(ctx, call)
	}
	if err := b.kind.checkFilter(f); err != nil {
		return err
	}
	switch {
	case call.Offsets != nil || call.States != nil:
		return check.Errorf(ErrShape, "ssm: Offsets or States are given, want one sequence")
	case call.State != nil && (call.State.n != 0 || call.State.filter != nil):
		return check.Errorf(ErrShape, "ssm: the state has seen %d tokens or has a filter, want an empty one without", call.State.n)
	}
	if err := check.Matrix(ErrShape, "ssm", "X", call.X, -1, b.dim, "Dim"); err != nil {
		return err
	}
	n := call.X.Rows
	if n == 0 {
		return b.Run(ctx, call)
	}
	var filter DeltaFilter
	if f.cfg.Method.causal() {
		var err error
		if filter, err = f.Delta(0, n); err != nil {
			return err
		}
	} else {
		dt := zeroMatrix(n, b.kind.channels)
		if err := b.Run(ctx, &BlockCall{Dst: zeroMatrix(n, b.dim), X: call.X, Filter: RecordSteps(dt), Workers: call.Workers}); err != nil {
			return err
		}
		if err := f.Apply(0, dt); err != nil {
			return err
		}
		filter = ReplaySteps(dt)
	}
	c := *call
	c.Filter = ChainFilters(filter, call.Filter)
	return b.Run(ctx, &c)
}

// ChainFilters returns a filter that is each of several, one behind the other; those
// that are nil are left out, and of none it is nil.
func ChainFilters(filters ...DeltaFilter) DeltaFilter {
	var list []DeltaFilter
	for _, f := range filters {
		if f != nil {
			list = append(list, f)
		}
	}
	switch len(list) {
	case 0:
		return nil
	case 1:
		return list[0]
	}
	return func(position, first int, dt []float32) {
		for _, f := range list {
			f(position, first, dt)
		}
	}
}
