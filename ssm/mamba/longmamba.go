package mamba

import (
	"context"
	"fmt"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/ssm"
	"github.com/subquad/subquad/ssm/longmamba"
)

// Calibrate runs sequences of the length that the model was trained with, all of the
// same, and returns the tables of LongMamba for it (arXiv 2504.16053): some five of
// them do. They need no labels; text like the training's is best. A filter of the
// tables goes into a state:
//
//	calibration, err := m.Calibrate(ctx, sequences, longmamba.CalibrationConfig{})
//	filter, err := calibration.NewFilter(longmamba.FilterConfig{})
//	st, err := m.NewState(ssm.StateConfig{Filter: filter, Prompt: len(prompt)})
//
// It costs what the model costs for the sequences, and a sort of each channel's steps;
// it takes 4 bytes for each token of a sequence and channel of all layers. Errors
// match ErrConfig, ErrShape or longmamba.ErrCalibration, or are ctx.Err().
func (m *Model) Calibrate(ctx context.Context, sequences [][]int32, cfg longmamba.CalibrationConfig) (*longmamba.Calibration, error) {
	if len(sequences) == 0 {
		return nil, check.Errorf(ErrShape, "mamba: no sequences to calibrate with")
	}
	if len(m.layers) == 0 {
		return nil, check.Errorf(ErrConfig, "mamba: a calibration of a model without layers")
	}
	if cfg.TrainLength == 0 {
		cfg.TrainLength = len(sequences[0])
	}
	for i, s := range sequences {
		if len(s) != cfg.TrainLength {
			return nil, check.Errorf(ErrShape, "mamba: sequence %d has %d tokens, want %d as the first, or as TrainLength says", i, len(s), cfg.TrainLength)
		}
	}
	if cfg.Workers == 0 {
		cfg.Workers = m.cfg.Workers
	}
	var list []*longmamba.Calibrator
	for _, l := range m.layers {
		c, err := longmamba.NewCalibrator(l.mixer, cfg)
		if err != nil {
			return nil, wrap(err)
		}
		list = append(list, c)
	}
	for i, s := range sequences {
		call := Call{Tokens: s, Workers: cfg.Workers, Filter: func(layer int) ssm.DeltaFilter { return list[layer].Record }}
		if err := m.Run(ctx, &call); err != nil {
			return nil, err
		}
		for layer, c := range list {
			if err := c.Next(); err != nil {
				return nil, fmt.Errorf("mamba: sequence %d, layer %d: %w", i, layer, err)
			}
		}
	}
	var all *longmamba.Calibration
	for _, c := range list {
		one, err := c.Calibration()
		if err != nil {
			return nil, wrap(err)
		}
		if all == nil {
			all = one
		} else {
			all.Tables = append(all.Tables, one.Tables...)
		}
	}
	return all, nil
}

// SetFilter gives the state another filter, for a prompt of so many tokens, as
// ssm.StateConfig does; nil for none. It is how a state that was stored, which is
// without its filter, gets it back. After an error, which matches
// longmamba.ErrCalibration where the filter is another model's and else ErrConfig,
// ErrShape or ssm.ErrConfig, the state is as it was.
func (st *State) SetFilter(filter ssm.FilterSource, prompt int) error {
	if st.model == nil {
		return check.Errorf(ErrShape, "mamba: the state was not made by NewState")
	}
	f, ok := filter.(*longmamba.Filter)
	if filter != nil && !ok {
		return check.Errorf(ErrConfig, "mamba: Filter is a %T, want a *longmamba.Filter", filter)
	}
	if f != nil && f.Blocks() != len(st.layers) {
		return check.Errorf(ErrConfig, "mamba: Filter is of %d blocks, want %d, one for each layer", f.Blocks(), len(st.layers))
	}
	lists := [][]*ssm.State{st.model.newLayers(), st.layers} // the first so that an error changes nothing
	for _, s := range st.ring {
		lists = append(lists, s.layers)
	}
	for _, list := range lists {
		for i, l := range list {
			if err := setFilter(l, f, i, prompt); err != nil {
				return fmt.Errorf("mamba: layer %d: %w", i, err)
			}
		}
	}
	return nil
}

func setFilter(st *ssm.State, f *longmamba.Filter, layer, prompt int) error {
	if f == nil {
		return st.SetFilter(nil, prompt)
	}
	one, err := f.Block(layer)
	if err != nil {
		return err
	}
	return st.SetFilter(one, prompt)
}

// Report runs a whole prompt with a filter, or without where it is nil, and tells for
// each layer what it does to each channel or head: receptive fields, what is kept,
// decays before and after. It takes 8 bytes for each token and channel of all layers.
// Errors match those of NewState and Run.
func (m *Model) Report(ctx context.Context, tokens []int32, f *longmamba.Filter) ([][]longmamba.ChannelReport, error) {
	n := len(tokens)
	if f != nil && n > 0 { // is it of this model, and can it run token by token
		if _, err := m.NewState(ssm.StateConfig{Filter: f, Prompt: n}); err != nil {
			return nil, err
		}
	}
	type steps struct{ before, after blas32.General }
	var list []steps
	for _, l := range m.layers {
		list = append(list, steps{zeroed(n, l.mixer.Channels()), zeroed(n, l.mixer.Channels())})
	}
	call := Call{Tokens: tokens, Filter: func(layer int) ssm.DeltaFilter {
		var filter ssm.DeltaFilter
		if f != nil {
			filter, _ = f.Delta(layer, n) // NewState has had it
		}
		return ssm.ChainFilters(ssm.RecordSteps(list[layer].before), filter, ssm.RecordSteps(list[layer].after))
	}}
	if err := m.Run(ctx, &call); err != nil {
		return nil, err
	}
	var reports [][]longmamba.ChannelReport
	for layer, l := range m.layers {
		r, err := longmamba.Report(l.mixer, list[layer].before, list[layer].after)
		if err != nil {
			return nil, wrap(err)
		}
		reports = append(reports, r)
	}
	return reports, nil
}

func zeroed(rows, cols int) blas32.General {
	return mat.Of(make([]float32, rows*cols), rows, cols)
}
