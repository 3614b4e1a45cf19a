package longmamba

import (
	"context"
	"math"
	"slices"
	"sync/atomic"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/ssm"
)

// CalibrationConfig says how a calibration is made of sequences.
type CalibrationConfig struct {
	// TrainLength is S, the tokens of each sequence: as many as the model was trained
	// with. A model's Calibrate takes 0 for those of the sequences.
	TrainLength int
	// Lengths are those that the tables get a row for, ascending; nil is the official
	// code's grid: TrainLength times 1, 1.5, 2, 2.5, 3, 3.5, 4 to 8 and so on to 96.
	Lengths []int
	// Clamp cuts a channel's largest steps, this fraction of a sequence's, down to the
	// smallest of them, so that outliers do not fill the sum that thresholds are made
	// for. 0 cuts none; settings reported of the paper are 0.05 to 0.2. The filter does
	// not cut.
	Clamp float64
	// Max takes the largest of the sequences' numbers instead of their mean.
	Max bool
	// Workers is how many goroutines may be used, 0 for GOMAXPROCS.
	Workers int
}

const (
	// maxTrainLength bounds TrainLength.
	maxTrainLength = 1 << 24
	// maxFloats bounds what a calibrator keeps of a sequence, and a table.
	maxFloats = math.MaxInt32 / 4
)

// grid are the official lengths, in halves of a training length.
var grid = []int{2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 30, 36, 44, 54, 64, 80, 96, 120, 144, 168, 192}

// complete checks cfg and fills in defaults.
func (cfg *CalibrationConfig) complete() error {
	switch {
	case cfg.TrainLength < 1 || cfg.TrainLength > maxTrainLength:
		return check.Errorf(ErrConfig, "longmamba: TrainLength is %d, want 1 to %d", cfg.TrainLength, maxTrainLength)
	case !(cfg.Clamp >= 0 && cfg.Clamp < 1):
		return check.Errorf(ErrConfig, "longmamba: Clamp is %v, want 0 or more and less than 1", cfg.Clamp)
	}
	if err := check.Workers(ErrConfig, "longmamba", cfg.Workers); err != nil {
		return err
	}
	if cfg.Lengths == nil {
		for _, halves := range grid {
			cfg.Lengths = append(cfg.Lengths, int(int64(cfg.TrainLength)*int64(halves)/2))
		}
		cfg.Lengths = slices.Compact(cfg.Lengths) // 1 and 1.5 of one token
	}
	cfg.Lengths = slices.Clone(cfg.Lengths)
	return checkGrid(ErrConfig, cfg.Lengths)
}

// Calibrator makes the calibration of one block, or of a Scan or SSD, of the steps
// that it sees:
//
//	c, err := longmamba.NewCalibrator(block, cfg)
//	for _, x := range sequences {
//		err = block.Run(ctx, &ssm.BlockCall{Dst: y, X: x, Filter: c.Record})
//		err = c.Next()
//	}
//	calibration, err := c.Calibration()
//
// (LongMamba, 2025, arXiv 2504.16053, sections 3 and 4.) Sequences must be run as the
// model was trained, without another filter and from empty states. A Calibrator keeps
// the steps of one sequence, and is used by one sequence at a time.
type Calibrator struct {
	cfg      CalibrationConfig
	op       ssm.Identity
	rates    blas32.General // A [channels, N]
	dt       []float32      // [S, channels]: the sequence's steps
	recorded atomic.Int64   // steps of the sequence so far
	outside  atomic.Int64   // the last position after S, plus 1; 0 where there was none

	sequences        int         // that have ended
	logDecay, dtSum  []float64   // [channels]: of a Table, summed over sequences or their largest
	alpha, threshold [][]float64 // [lengths][channels]: likewise
	group            parallel.Group
	workers          []channelWork
}

// channelWork is what a worker has for itself, for a channel and S steps.
type channelWork struct {
	dt, sorted []float32 // [S]: the channel's steps, as they come and the largest first
	term, sum  []float32 // [S]: the decays of a state, and of all
}

// Operator is what can be calibrated: an ssm.Scan, an ssm.SSD with A, or a block.
type Operator interface {
	// Identity names the operator and says how many steps dt a token has.
	Identity() ssm.Identity
	// Rates returns A, the decay rates [channels, N].
	Rates() blas32.General
}

// NewCalibrator returns a calibrator of an operator. The channels of its table are those
// of a scan or Mamba, the heads of an SSD or Mamba2. Errors match ErrConfig.
func NewCalibrator(op Operator, cfg CalibrationConfig) (*Calibrator, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	if op == nil {
		return nil, check.Errorf(ErrConfig, "longmamba: the operator is nil")
	}
	rates := op.Rates()
	if rates.Rows == 0 {
		return nil, check.Errorf(ErrConfig, "longmamba: a calibration of an %s without A", op.Identity().Name)
	}
	if check.Product(maxFloats, cfg.TrainLength, rates.Rows) < 0 || check.Product(maxFloats, len(cfg.Lengths), rates.Rows) < 0 {
		return nil, check.Errorf(ErrConfig, "longmamba: %d tokens and %d lengths of %d channels are too many", cfg.TrainLength, len(cfg.Lengths), rates.Rows)
	}
	c := &Calibrator{cfg: cfg, op: op.Identity(), rates: rates, dt: make([]float32, cfg.TrainLength*rates.Rows)}
	c.logDecay, c.dtSum = make([]float64, rates.Rows), make([]float64, rates.Rows)
	for i := range c.logDecay {
		c.logDecay[i] = math.Inf(-1)
	}
	for range cfg.Lengths {
		c.alpha, c.threshold = append(c.alpha, make([]float64, rates.Rows)), append(c.threshold, make([]float64, rates.Rows))
	}
	return c, nil
}

// Record is a DeltaFilter that changes nothing.
func (c *Calibrator) Record(position, first int, dt []float32) {
	if position >= c.cfg.TrainLength || first+len(dt) > c.rates.Rows {
		c.outside.Store(int64(position) + 1)
		return
	}
	copy(c.dt[position*c.rates.Rows+first:], dt)
	c.recorded.Add(int64(len(dt)))
}

// Next ends a sequence, all of whose tokens must have been recorded. After an error,
// which matches ErrCalibration, the sequence does not count.
func (c *Calibrator) Next() error {
	recorded, outside, channels := c.recorded.Swap(0), c.outside.Swap(0), c.rates.Rows
	switch want := int64(len(c.dt)); {
	case outside > int64(c.cfg.TrainLength):
		return check.Errorf(ErrCalibration, "longmamba: a sequence has at least %d tokens, want TrainLength = %d", outside, c.cfg.TrainLength)
	case outside > 0:
		return check.Errorf(ErrCalibration, "longmamba: the recorded steps are not those of a %s", c.op.Name)
	case recorded != want:
		return check.Errorf(ErrCalibration, "longmamba: a sequence has %d tokens, want TrainLength = %d", recorded/int64(channels), c.cfg.TrainLength)
	}
	for i, v := range c.dt {
		if !(v >= 0) || math.IsInf(float64(v), 0) {
			return check.Errorf(ErrCalibration, "longmamba: the step of token %d in channel %d is %v, want a finite number, 0 or more", i/channels, i%channels, v)
		}
	}
	workers := parallel.Workers(c.cfg.Workers)
	for len(c.workers) < workers {
		c.workers = append(c.workers, channelWork{})
	}
	err := c.group.RunAs(context.Background(), "longmamba", workers, channels, func(worker, channel int) { c.addChannel(&c.workers[worker], channel) })
	if err == nil {
		c.sequences++
	}
	return err
}

// addChannel adds a channel's part of a sequence to the tables.
func (c *Calibrator) addChannel(w *channelWork, channel int) {
	n := c.cfg.TrainLength
	for _, list := range [...]*[]float32{&w.dt, &w.term, &w.sum, &w.sorted} {
		*list = scratch.Floats(*list, n)
	}
	for t := range n {
		w.dt[t] = c.dt[t*c.rates.Rows+channel]
	}
	copy(w.sorted, w.dt)
	slices.Sort(w.sorted)
	slices.Reverse(w.sorted)
	if c.cfg.Clamp > 0 {
		most := w.sorted[max(1, int(float64(n)*c.cfg.Clamp))-1]
		for _, list := range [][]float32{w.dt, w.sorted} {
			for i, v := range list {
				list[i] = min(v, most)
			}
		}
	}
	var sum float64
	for _, v := range w.dt {
		sum += float64(v)
	}
	add := func(to *float64, v float64) {
		if c.cfg.Max {
			*to = max(*to, v)
		} else {
			*to += v
		}
	}
	decay := w.logDecay(mat.Row(c.rates, channel), w.dt)
	if c.cfg.Max {
		c.logDecay[channel] = max(c.logDecay[channel], decay)
	} else {
		c.logDecay[channel] = logSum(c.logDecay[channel], decay)
	}
	add(&c.dtSum[channel], sum)
	for i, length := range c.cfg.Lengths {
		alpha, threshold := budget(w.sorted, sum, length)
		add(&c.alpha[i][channel], float64(float32(alpha)))
		add(&c.threshold[i][channel], threshold)
	}
}

// logSum returns ln(exp(a) + exp(b)), for a or b of -Inf too.
func logSum(a, b float64) float64 {
	if a < b {
		a, b = b, a
	}
	if math.IsInf(b, -1) {
		return a
	}
	return a + math.Log1p(math.Exp(b-a))
}

// logDecay returns the logarithm of what remains of a channel's state after steps dt,
//
//	sum over t of ln(mean over n of exp(dt[t] a[n])),
//
// with the largest of a taken out of the mean, so that nothing underflows.
func (w *channelWork) logDecay(a, dt []float32) float64 {
	most, sum := slices.Max(a), 0.0
	for _, v := range dt {
		sum += float64(v)
	}
	log := float64(most) * sum
	if len(a) == 1 {
		return log
	}
	w.term, w.sum = scratch.Floats(w.term, len(dt)), scratch.Floats(w.sum, len(dt))
	clear(w.sum)
	for _, rate := range a {
		asm.Scale(w.term, rate-most, dt)
		asm.Exp(w.term, w.term)
		asm.Add(w.sum, w.sum, w.term)
	}
	for _, v := range w.sum {
		log += math.Log(float64(v) / float64(len(a)))
	}
	return log
}

// budget returns, for a sequence of length tokens whose steps are distributed as those
// of sorted, which descend, which fraction alpha of the steps, the largest, have the
// given sum, and the largest step of the others as threshold. Where all steps together
// have it they are 1 and 0.
func budget(sorted []float32, sum float64, length int) (alpha, threshold float64) {
	n := len(sorted)
	if length <= n {
		return 1, 0
	}
	// The sorted steps, drawn out to length by linear interpolation.
	scale := float64(n) / float64(length)
	at := func(i int) float64 {
		pos := max(scale*(float64(i)+0.5)-0.5, 0)
		i0 := min(int(pos), n-1)
		i1, part := min(i0+1, n-1), pos-float64(i0)
		return (1-part)*float64(sorted[i0]) + part*float64(sorted[i1])
	}
	var total float64
	for i := range length - 1 {
		if total += at(i); total > sum {
			return float64(i+1) / float64(length), at(i + 1)
		}
	}
	return 1, 0
}

// Calibration returns what the sequences so far give, with one table, the block's.
// Errors match ErrCalibration.
func (c *Calibrator) Calibration() (*Calibration, error) {
	if c.sequences == 0 {
		return nil, check.Errorf(ErrCalibration, "longmamba: a calibration of no sequences")
	}
	k := 1.0
	if !c.cfg.Max {
		k = float64(c.sequences)
	}
	t := Table{Fingerprint: c.op.Fingerprint}
	for i, v := range c.logDecay {
		t.LogDecay = append(t.LogDecay, v-math.Log(k))
		t.DtSum = append(t.DtSum, c.dtSum[i]/k)
	}
	mean := func(list [][]float64) (out [][]float32) {
		for _, from := range list {
			row := make([]float32, len(from))
			for i, v := range from {
				row[i] = float32(v / k)
			}
			out = append(out, row)
		}
		return out
	}
	t.Alpha, t.Threshold = mean(c.alpha), mean(c.threshold)
	out := &Calibration{TrainLength: c.cfg.TrainLength, Lengths: slices.Clone(c.cfg.Lengths), Tables: []Table{t}}
	return out, out.check()
}
