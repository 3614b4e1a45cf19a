package ssm

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
)

// RecordSteps returns a filter that changes nothing and copies the steps of token t
// to row t of dst [n, channels]: behind softplus, limits, and a state's filter.
func RecordSteps(dst blas32.General) DeltaFilter {
	return func(position, first int, dt []float32) { copy(stepsAt(dst, position, first, len(dt)), dt) }
}

// ReplaySteps returns a filter that sets the steps of token t to row t of a matrix
// [n, channels], such as Filter.Apply has made of recorded ones.
func ReplaySteps(from blas32.General) DeltaFilter {
	return func(position, first int, dt []float32) { copy(dt, stepsAt(from, position, first, len(dt))) }
}

func stepsAt(m blas32.General, position, first, n int) []float32 {
	if position >= m.Rows || first+n > m.Cols {
		panic(fmt.Sprintf("ssm: steps of token %d, channels %d to %d, and a matrix of %d x %d", position, first, first+n-1, m.Rows, m.Cols))
	}
	return m.Data[position*m.Stride+first:][:n]
}

// ChannelReport tells what a filter does to a channel of a block, or to a head.
type ChannelReport struct {
	// ReceptiveField is within how many tokens of the sequence's kind the state decays
	// to 1/20 of what it was, unfiltered: n ln(1/20) / Before. +Inf is never.
	ReceptiveField float64
	// Kept is the fraction of the tokens whose step is not 0 behind the filter.
	Kept float64
	// Before and After are the natural logarithms of what remains of the state behind
	// all tokens, without the filter and with it.
	Before, After float64
}

// report makes a report of a sequence's steps. rates are A [channels, N].
func report(rates blas32.General, before, after blas32.General) ([]ChannelReport, error) {
	if err := check.Matrix(ErrShape, "ssm", "before", before, -1, rates.Rows, "channels"); err != nil {
		return nil, err
	}
	if err := check.Matrix(ErrShape, "ssm", "after", after, before.Rows, rates.Rows, "channels"); err != nil {
		return nil, err
	}
	var w calibrationWork
	n := before.Rows
	list := make([]ChannelReport, rates.Rows)
	column := make([]float32, n)
	for channel := range list {
		decay := func(dt blas32.General) (log float64, kept int) {
			for t := range column {
				if column[t] = dt.Data[t*dt.Stride+channel]; column[t] != 0 {
					kept++
				}
			}
			return w.decay(rates.Data[channel*rates.Stride:][:rates.Cols], column), kept
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

// Report tells, for each channel, what a filter has made of a sequence's steps
// [n, channels], recorded before and after it. Errors match ErrShape.
func (op *Scan) Report(before, after blas32.General) ([]ChannelReport, error) {
	return report(op.rates(), before, after)
}

// Report tells, for each head, what a filter has made of a sequence's steps [n, H],
// recorded before and after it. Errors match ErrShape.
func (op *SSD) Report(before, after blas32.General) ([]ChannelReport, error) {
	return report(op.rates(), before, after)
}

// Report tells, for each channel or head, what a filter has made of a sequence's
// steps [n, channels], recorded before and after it. Errors match ErrShape.
func (b *block) Report(before, after blas32.General) ([]ChannelReport, error) {
	return report(b.mixer.rates(), before, after)
}
