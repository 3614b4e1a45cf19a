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
// match ErrConfig, ErrShape, ErrCall or longmamba.ErrCalibration, or are ctx.Err().
func (m *Model) Calibrate(ctx context.Context, sequences [][]int32, cfg longmamba.CalibrationConfig) (*longmamba.Calibration, error) {
	if len(sequences) == 0 {
		return nil, check.Errorf(ErrShape, "mamba: no sequences to calibrate with")
	}
	if len(m.blocks) == 0 {
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
	for _, b := range m.blocks {
		c, err := longmamba.NewCalibrator(b, cfg)
		if err != nil {
			return nil, fmt.Errorf("mamba: %w", err)
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
			return nil, fmt.Errorf("mamba: %w", err)
		}
		if all == nil {
			all = one
		} else {
			all.Tables = append(all.Tables, one.Tables...)
		}
	}
	return all, nil
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
	filters := make([]ssm.DeltaFilter, len(m.blocks))
	for layer, b := range m.blocks {
		list = append(list, steps{mat.New(n, b.Channels()), mat.New(n, b.Channels())})
		if f != nil && n > 0 {
			var err error
			if filters[layer], err = f.Delta(layer, n); err != nil {
				return nil, fmt.Errorf("mamba: layer %d: %w", layer, err)
			}
		}
	}
	call := Call{Tokens: tokens, Filter: func(layer int) ssm.DeltaFilter {
		return ssm.ChainFilters(ssm.RecordSteps(list[layer].before), filters[layer], ssm.RecordSteps(list[layer].after))
	}}
	if err := m.Run(ctx, &call); err != nil {
		return nil, err
	}
	var reports [][]longmamba.ChannelReport
	for layer, b := range m.blocks {
		r, err := longmamba.Report(b, list[layer].before, list[layer].after)
		if err != nil {
			return nil, fmt.Errorf("mamba: %w", err)
		}
		reports = append(reports, r)
	}
	return reports, nil
}
