package ssm

import "github.com/subquad/subquad/internal/check"

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

func (st *State) deltaFilter(f *Filter, prompt int) (DeltaFilter, error) {
	k := st.kind
	switch {
	case k == nil:
		return nil, check.Errorf(ErrShape, "ssm: the state was not made by NewState")
	case prompt < 0 || prompt > maxLength:
		return nil, check.Errorf(ErrConfig, "ssm: Prompt is %d, want 0 to %d", prompt, maxLength)
	case f == nil:
		return nil, nil
	case k.channels == 0:
		return nil, check.Errorf(ErrConfig, "ssm: Filter is given, but a %s has no filter of its steps", k.name)
	case len(f.blocks) != 1:
		return nil, check.Errorf(ErrConfig, "ssm: Filter is of %d blocks, want 1: that of Filter.Block", len(f.blocks))
	}
	t := &f.cal.Tables[0]
	switch {
	case len(t.LogDecay) != k.channels:
		return nil, check.Errorf(ErrCalibration, "ssm: the calibration is of %d channels, a %s has %d", len(t.LogDecay), k.name, k.channels)
	case t.Fingerprint != 0 && t.Fingerprint != k.hash:
		return nil, check.Errorf(ErrCalibration, "ssm: the calibration is of another operator than this %s, or of other weights", k.name)
	}
	return f.Delta(0, prompt)
}
