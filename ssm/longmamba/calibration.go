package longmamba

import (
	"math"

	"github.com/subquad/subquad/internal/check"
)

// Calibration is what LongMamba knows of a model: for each of its blocks, how much
// of a channel's state remains after a sequence of the training's length, and above
// which steps dt a channel has to stay, in sequences of any length, to keep as much.
// A Calibrator makes it of a few sequences; it can also be filled in by hand, of
// tables that were made elsewhere. It must not change once a filter is made of it.
//
// A table takes 8 bytes for each channel and length.
type Calibration struct {
	// TrainLength is S, the tokens of a sequence that the model was trained with:
	// sequences that are no longer are not filtered.
	TrainLength int
	// Lengths are those that the tables have a row for, ascending.
	Lengths []int
	// Tables has one for each block.
	Tables []Table
}

// Table is the part of a Calibration that belongs to one block, whose channels are
// those of a Mamba or Scan, and the heads of a Mamba2 or SSD.
type Table struct {
	// Fingerprint is the block's; a table is refused by any other. 0 is for tables
	// that were not made here, which are taken by any block of as many channels.
	Fingerprint uint64
	// LogDecay is, for each channel, the natural logarithm of what remains of a state
	// after TrainLength tokens:
	//
	//	sum over t of dt[t] A                                 Mamba-2
	//	sum over t of ln(mean over n of exp(dt[t] A[n]))      Mamba
	//
	// It is a logarithm so that 1e-300 and less can be told from 0.
	LogDecay []float64
	// DtSum is the sum of the steps of TrainLength tokens, for each channel.
	DtSum []float64
	// Alpha and Threshold have a row for each of Lengths, of an element for each
	// channel: of a sequence of that length, keeping the largest steps until their
	// sum is DtSum keeps the fraction Alpha of them, those above Threshold. Up to
	// TrainLength they are 1 and 0.
	Alpha, Threshold [][]float32
}

// maxLength bounds lengths of a table, so that sums of them do not overflow.
const maxLength = math.MaxInt32

// check returns an error unless a filter can be made of c.
func (c *Calibration) check() error {
	switch {
	case c == nil:
		return check.Errorf(ErrCalibration, "longmamba: the calibration is nil")
	case c.TrainLength < 1 || c.TrainLength > maxLength:
		return check.Errorf(ErrCalibration, "longmamba: the calibration's TrainLength is %d, want 1 to %d", c.TrainLength, maxLength)
	case len(c.Tables) == 0:
		return check.Errorf(ErrCalibration, "longmamba: the calibration has no table")
	}
	if err := checkGrid(ErrCalibration, c.Lengths); err != nil {
		return err
	}
	for i := range c.Tables {
		if err := c.Tables[i].check(len(c.Lengths), i); err != nil {
			return err
		}
	}
	return nil
}

// checkGrid returns an error unless lengths can be those of tables: ascending.
func checkGrid(kind error, lengths []int) error {
	if len(lengths) == 0 {
		return check.Errorf(kind, "longmamba: Lengths is empty, want a length")
	}
	for i, n := range lengths {
		if n < 1 || n > maxLength || i > 0 && n <= lengths[i-1] {
			return check.Errorf(kind, "longmamba: Lengths[%d] is %d, want 1 to %d and more than the one before it", i, n, maxLength)
		}
	}
	return nil
}

func (t *Table) check(lengths, block int) error {
	channels := len(t.LogDecay)
	wrong := func(format string, args ...any) error {
		return check.Errorf(ErrCalibration, "longmamba: table %d: "+format, append([]any{block}, args...)...)
	}
	switch {
	case channels == 0:
		return wrong("LogDecay is empty, want a number for each channel")
	case len(t.DtSum) != channels:
		return wrong("DtSum has %d elements, LogDecay %d", len(t.DtSum), channels)
	}
	for _, rows := range []struct {
		name string
		list [][]float32
		most float64
	}{{"Alpha", t.Alpha, 1}, {"Threshold", t.Threshold, math.MaxFloat32}} {
		if len(rows.list) != lengths {
			return wrong("%s has %d rows, want one for each of the %d Lengths", rows.name, len(rows.list), lengths)
		}
		for i, row := range rows.list {
			if len(row) != channels {
				return wrong("%s[%d] has %d elements, LogDecay %d", rows.name, i, len(row), channels)
			}
			for j, v := range row {
				if !(v >= 0 && float64(v) <= rows.most) {
					return wrong("%s[%d][%d] is %v, want 0 to %.4g", rows.name, i, j, v, rows.most)
				}
			}
		}
	}
	for i, v := range t.LogDecay {
		if math.IsNaN(v) || math.IsInf(v, 1) {
			return wrong("LogDecay[%d] is %v, want a number", i, v)
		}
		if s := t.DtSum[i]; !(s >= 0) || math.IsInf(s, 0) {
			return wrong("DtSum[%d] is %v, want a finite number, 0 or more", i, s)
		}
	}
	return nil
}

// row returns the row for sequences of n tokens: that of the nearest length, of two
// the smaller.
func (c *Calibration) row(n int) int {
	best := 0
	for i, length := range c.Lengths {
		if distance(n, length) < distance(n, c.Lengths[best]) {
			best = i
		}
	}
	return best
}

func distance(a, b int) int { return max(a-b, b-a) }

// ReceptiveFields returns, for each channel of a block, within how many tokens its
// state decays to the fraction threshold of what it was, if they are as those of the
// calibration: TrainLength ln(threshold) / LogDecay. Those beyond TrainLength are the
// channels that FilterConfig.Threshold takes for global. A channel that does not
// decay has +Inf. Errors match ErrConfig or ErrCalibration.
func (c *Calibration) ReceptiveFields(block int, threshold float64) ([]float64, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if err := c.checkBlock(block); err != nil {
		return nil, err
	}
	if !(threshold > 0 && threshold < 1) {
		return nil, check.Errorf(ErrConfig, "longmamba: threshold is %v, want more than 0 and less than 1", threshold)
	}
	var fields []float64
	for _, v := range c.Tables[block].LogDecay {
		field := math.Inf(1)
		if v < 0 {
			field = float64(c.TrainLength) * math.Log(threshold) / v
		}
		fields = append(fields, field)
	}
	return fields, nil
}

func (c *Calibration) checkBlock(block int) error {
	if block < 0 || block >= len(c.Tables) {
		return check.Errorf(ErrConfig, "longmamba: block is %d, want 0 to %d", block, len(c.Tables)-1)
	}
	return nil
}
