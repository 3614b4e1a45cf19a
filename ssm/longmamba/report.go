package longmamba

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
)

// ChannelReport tells what a filter does to a channel of a block, or to a head.
type ChannelReport struct {
	// ReceptiveField is within how many tokens of the sequence's kind the state decays
	// to 1/20 of what it was, unfiltered: n ln(1/20) / Before. +Inf is never.
	ReceptiveField float64
	// Kept is the fraction of the tokens whose step is not 0 after the filter.
	Kept float64
	// Before and After are the natural logarithms of what remains of the state after
	// all tokens, without the filter and with it.
	Before, After float64
}

// Report tells, for each channel of an operator (each head of an SSD or Mamba2), what a
// filter has made of a sequence's steps [n, channels], recorded before and after it
// (ssm.RecordSteps). Errors match ErrShape, or ErrCall for no operator.
func Report(op Operator, before, after blas32.General) ([]ChannelReport, error) {
	if op == nil {
		return nil, check.Errorf(ErrCall, "longmamba: the operator is nil")
	}
	rates := op.Rates()
	if err := check.Matrix(ErrShape, "longmamba", "before", before, -1, rates.Rows, "channels"); err != nil {
		return nil, err
	}
	if err := check.Matrix(ErrShape, "longmamba", "after", after, before.Rows, rates.Rows, "channels"); err != nil {
		return nil, err
	}
	var w channelWork
	n := before.Rows
	list := make([]ChannelReport, rates.Rows)
	column := make([]float32, n)
	for channel := range list {
		decay := func(dt blas32.General) (log float64, kept int) {
			for t := range column {
				if column[t] = mat.Row(dt, t)[channel]; column[t] != 0 {
					kept++
				}
			}
			return w.logDecay(mat.Row(rates, channel), column), kept
		}
		r, kept := &list[channel], 0
		r.Before, _ = decay(before)
		r.After, kept = decay(after)
		r.ReceptiveField = math.Inf(1)
		if r.Before < 0 {
			r.ReceptiveField = float64(n) * math.Log(1./20) / r.Before
		}
		if n > 0 {
			r.Kept = float64(kept) / float64(n)
		}
	}
	return list, nil
}
