package ssm

import (
	"context"
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// ConvConfig fixes a Conv.
type ConvConfig struct {
	// SiLU applies x / (1 + exp(-x)) to the result.
	SiLU bool
	// Workers is how many goroutines a call may use, 0 for GOMAXPROCS.
	Workers int
}

// Conv is the short causal convolution in front of a scan, each channel by itself:
//
//	dst[t][c] = bias[c] + sum over j < K of weight[c][j] x[t-K+1+j][c].
//
// What precedes the first token is zero, or what the state holds. The state is the
// last K-1 rows of x. A Conv is immutable and safe for concurrent use.
type Conv struct {
	cfg     ConvConfig
	kind    kind
	taps    blas32.General // [K, C]
	bias    []float32
	scratch scratch.List[convScratch]
}

// NewConv returns the convolution of a weight [channels, K], which is a checkpoint's
// conv1d.weight [channels, 1, K], and a bias [channels], or nil. Errors match
// ErrConfig.
func NewConv(cfg ConvConfig, weight blas32.General, bias []float32) (*Conv, error) {
	if err := check.Matrix(ErrConfig, "ssm", "the convolution's weight", weight, weight.Rows, weight.Cols, ""); err != nil {
		return nil, err
	}
	channels, taps := weight.Rows, weight.Cols
	switch {
	case channels <= 0 || taps <= 0:
		return nil, check.Errorf(ErrConfig, "ssm: the convolution's weight is %d x %d, want channels x taps", channels, taps)
	case bias != nil && len(bias) != channels:
		return nil, check.Errorf(ErrConfig, "ssm: the convolution's bias has %d elements, want channels = %d", len(bias), channels)
	case cfg.Workers < 0:
		return nil, check.Errorf(ErrConfig, "ssm: Workers is %d, want 0 or more", cfg.Workers)
	}
	op := &Conv{cfg: cfg, taps: mat.Of(make([]float32, taps*channels), taps, channels)}
	for c := range channels {
		for j := range taps {
			op.taps.Data[j*channels+c] = weight.Data[c*weight.Stride+j]
		}
	}
	if bias != nil {
		op.bias = append([]float32{}, bias...)
	}
	op.kind = kind{name: fmt.Sprintf("convolution of %d channels with %d taps", channels, taps), size: (taps - 1) * channels}
	f := newFingerprint(op.kind.name)
	f.floats(op.taps.Data, op.bias)
	op.kind.hash = uint64(f)
	return op, nil
}

// ConvCall is a call of Conv with everything optional.
type ConvCall struct {
	// Dst and X are [n, channels]; Dst shares no element with X.
	Dst, X blas32.General
	// State is what comes before the rows, and is brought up to date; nil is
	// nothing, and nothing kept.
	State *State
	// Offsets packs several sequences into one call: the first row of each and at
	// last n. States, if given, has a state for each.
	Offsets []int
	States  []*State
	// Workers is how many goroutines the call may use, 0 for the configuration's.
	Workers int
}

// Forward convolves a whole sequence.
func (op *Conv) Forward(dst, x blas32.General) error {
	return op.Run(context.Background(), &ConvCall{Dst: dst, X: x})
}

// Step convolves the next tokens, one or many, behind those the state has seen.
// Any split gives the same bits.
func (op *Conv) Step(dst, x blas32.General, st *State) error {
	if err := op.kind.check("the state", st); err != nil {
		return err
	}
	return op.Run(context.Background(), &ConvCall{Dst: dst, X: x, State: st})
}

// StepBatch convolves one token, a row, for each of many states.
func (op *Conv) StepBatch(dst, x blas32.General, states []*State) error {
	return op.run(context.Background(), &ConvCall{Dst: dst, X: x}, packing{states: states, each: true})
}

// Run is Forward, Step and StepBatch with everything optional. Errors match
// ErrShape or, once ctx is done, ctx.Err(); states then stand where they stood, and
// Dst is unspecified.
func (op *Conv) Run(ctx context.Context, call *ConvCall) error {
	return op.run(ctx, call, packing{state: call.State, offsets: call.Offsets, states: call.States})
}

type convScratch struct {
	group     parallel.Group
	sequences sequences
	list      []segment
	op        *Conv
	dst, x    blas32.General
	task      func(worker, i int)
}

// rows is how many rows a task convolves: not fewer than the next one looks back.
func (op *Conv) rows() int { return max(256, op.taps.Rows) }

func (op *Conv) run(ctx context.Context, call *ConvCall, p packing) error {
	channels := op.taps.Cols
	if err := check.Matrix(ErrShape, "ssm", "X", call.X, -1, channels, "channels"); err != nil {
		return err
	}
	if err := check.Output(ErrShape, "ssm", call.Dst, call.X.Rows, channels, "channels", call.X, false); err != nil {
		return err
	}
	workers, err := callWorkers(call.Workers, op.cfg.Workers)
	if err != nil {
		return err
	}
	s := op.scratch.Get()
	defer op.scratch.Put(s)
	if err := s.sequences.begin(&op.kind, call.X.Rows, p, mayStop(ctx, nil)); err != nil {
		return err
	}
	err = s.run(ctx, op, call.Dst, call.X, s.sequences.list, workers)
	s.sequences.end(err)
	return err
}

// run convolves the rows of the segments and leaves the last ones in their values.
func (s *convScratch) run(ctx context.Context, op *Conv, dst, x blas32.General, list []segment, workers int) error {
	if s.task == nil {
		s.task = s.convolve
	}
	s.op, s.dst, s.x, s.list = op, dst, x, list
	defer func() { s.dst, s.x, s.list = blas32.General{}, blas32.General{}, nil }()
	tasks := 0
	for _, g := range list {
		tasks += (g.to - g.from + op.rows() - 1) / op.rows()
	}
	if err := wrap(s.group.Run(ctx, workers, tasks, s.task)); err != nil {
		return err
	}
	for _, g := range list {
		op.keep(g, x)
	}
	return nil
}

// history returns the rows before a segment.
func (op *Conv) history(g segment) blas32.General {
	return mat.Of(g.values, op.taps.Rows-1, op.taps.Cols)
}

// keep sets a segment's values to its last rows.
func (op *Conv) keep(g segment, x blas32.General) {
	rows, n := op.taps.Rows-1, g.to-g.from
	old := min(max(rows-n, 0), rows)
	h, cols := g.values, op.taps.Cols
	copy(h[:old*cols], h[(rows-old)*cols:])
	for i := old; i < rows; i++ {
		copy(h[i*cols:][:cols], x.Data[(g.to-rows+i)*x.Stride:])
	}
}

func (s *convScratch) convolve(_, i int) {
	op, rows := s.op, s.op.rows()
	var g segment
	for _, g = range s.list {
		tasks := (g.to - g.from + rows - 1) / rows
		if i < tasks {
			break
		}
		i -= tasks
	}
	from := g.from + i*rows
	to := min(from+rows, g.to)
	dst, x := mat.Rows(s.dst, from, to), mat.Rows(s.x, from, to)
	history := op.history(g)
	if i > 0 {
		history = mat.Rows(s.x, from-history.Rows, from)
	}
	asm.DepthwiseConv(dst, x, op.taps, op.bias, history)
	if op.cfg.SiLU {
		for t := range dst.Rows {
			row := dst.Data[t*dst.Stride:][:dst.Cols]
			asm.SiLU(row, row)
		}
	}
}

// ScratchBytes returns the working memory that a call of one sequence holds, at the
// most, besides its arguments, however many tokens it has.
func (op *Conv) ScratchBytes(tokens int) int64 { return scratchBytes(int64(op.kind.size)) }

// NewState returns an empty state.
func (op *Conv) NewState(cfg StateConfig) (*State, error) { return op.kind.newState(cfg) }

// callWorkers returns the number of goroutines of a call.
func callWorkers(call, config int) (int, error) {
	if call < 0 {
		return 0, check.Errorf(ErrShape, "ssm: Workers is %d, want 0 or more", call)
	}
	if call == 0 {
		call = config
	}
	return parallel.Workers(call), nil
}

func wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("ssm: %w", err)
}

// finite returns an error unless every element of x is a number.
func finite(name string, x []float32) error {
	for i, v := range x {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return check.Errorf(ErrConfig, "ssm: %s[%d] is %v, want a finite number", name, i, v)
		}
	}
	return nil
}
