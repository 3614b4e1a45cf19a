package merge

import (
	"context"
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// StreamConfig fixes a Stream.
type StreamConfig struct {
	// MetricDim is the width of the metric, Dim that of the tokens.
	MetricDim, Dim int
	// Above is the similarity that a pair must exceed to become one.
	Above float32
}

// Stream is causal merging as tokens come in: token 2i and 2i+1 become one, at the place
// of the second, where their similarity is greater than Above. It is Local with a Window
// of 1 and Call.Above, to the bit, for any split of the sequence: the one form of merging
// that can stream, for a choice among all tokens waits for the last of them, and a merged
// token must not stand before one of its own. It is immutable and safe for concurrent use.
type Stream struct {
	cfg     StreamConfig
	scratch scratch.List[streamRun]
}

// NewStream returns an operator, or an error that matches ErrConfig.
func NewStream(cfg StreamConfig) (*Stream, error) {
	switch {
	case cfg.MetricDim < 0 || cfg.Dim < 0 || max(cfg.MetricDim, cfg.Dim) > maxTokens:
		return nil, check.Errorf(ErrConfig, "merge: MetricDim is %d and Dim %d, want 0 to %d", cfg.MetricDim, cfg.Dim, maxTokens)
	case cfg.Above != cfg.Above || math.IsInf(float64(cfg.Above), 0):
		return nil, check.Errorf(ErrConfig, "merge: Above is %v, want a finite number", cfg.Above)
	}
	return &Stream{cfg: cfg}, nil
}

// StreamCall is a call of Stream. Dst, X and Metric are needed.
type StreamCall struct {
	// X [tokens, Dim] are the next tokens, Metric [tokens, MetricDim] what they are
	// compared by.
	X, Metric blas32.General
	// Dst takes the rows that come out, and must have Room(tokens, State) of them.
	// It shares no element with the others.
	Dst blas32.General
	// Size [tokens] are the sizes of the tokens, nil where each is 1. Total, if not nil,
	// takes the size of each row of Dst, and Kept the token whose place it takes, counted
	// from the first of the stream; both are as long as Dst at least.
	Size, Total []float32
	Kept        []int64
	// State is what the stream has seen, and is brought up to date; nil is nothing.
	State *State
	// End says that no token follows: one that waits for its second comes out.
	End bool
}

// Forward merges a whole sequence and returns how many rows of dst, which has as many as
// x, it has set.
func (op *Stream) Forward(dst, x, metric blas32.General) (int, error) {
	return op.Run(context.Background(), &StreamCall{Dst: dst, X: x, Metric: metric, End: true})
}

// Step takes the next tokens, one or many, and returns how many rows of dst it has set: a
// token that waits for the second of its pair comes out with that one.
func (op *Stream) Step(dst, x, metric blas32.General, st *State) (int, error) {
	if err := op.checkState(st); err != nil {
		return 0, err
	}
	return op.Run(context.Background(), &StreamCall{Dst: dst, X: x, Metric: metric, State: st})
}

// Room returns how many rows may come out of a call of so many tokens. st may be nil.
func (op *Stream) Room(tokens int, st *State) int {
	if st != nil {
		tokens += st.Waiting()
	}
	return tokens
}

// Run is Forward and Step with everything optional. Errors match ErrShape, ErrCall or
// ErrState, or are ctx.Err(); the state then stands where it stood and nothing is written.
func (op *Stream) Run(ctx context.Context, call *StreamCall) (int, error) {
	if err := op.check(call); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("merge: %w", err)
	}
	r := op.scratch.Get()
	defer op.scratch.Put(r)
	return r.run(op, call), nil
}

func (op *Stream) check(c *StreamCall) error {
	if c.State != nil {
		if err := op.checkState(c.State); err != nil {
			return err
		}
	}
	n := c.X.Rows
	if err := check.Matrix(ErrShape, "merge", "x", c.X, -1, op.cfg.Dim, "Dim"); err != nil {
		return err
	}
	if err := check.Matrix(ErrShape, "merge", "the metric", c.Metric, n, op.cfg.MetricDim, "MetricDim"); err != nil {
		return err
	}
	if err := check.Matrix(ErrShape, "merge", "dst", c.Dst, -1, op.cfg.Dim, "Dim"); err != nil {
		return err
	}
	room := op.Room(n, c.State)
	switch {
	case n > maxTokens:
		return check.Errorf(ErrShape, "merge: %d tokens, want at most %d", n, maxTokens)
	case c.Dst.Rows < room:
		return check.Errorf(ErrShape, "merge: dst has %d rows, want Room = %d", c.Dst.Rows, room)
	case c.Size != nil && len(c.Size) != n:
		return check.Errorf(ErrShape, "merge: Size has %d elements, want the rows of x = %d", len(c.Size), n)
	case c.Total != nil && len(c.Total) < room:
		return check.Errorf(ErrShape, "merge: Total has %d elements, want Room = %d", len(c.Total), room)
	case c.Kept != nil && len(c.Kept) < room:
		return check.Errorf(ErrShape, "merge: Kept has %d elements, want Room = %d", len(c.Kept), room)
	}
	for _, in := range [...]blas32.General{c.X, c.Metric, mat.Vector(c.Size)} {
		if mat.Overlap(c.Dst, in) || mat.Overlap(mat.Vector(c.Total), in) {
			return check.Errorf(ErrShape, "merge: dst or Total shares elements with an input")
		}
	}
	if mat.Overlap(c.Dst, mat.Vector(c.Total)) {
		return check.Errorf(ErrShape, "merge: dst shares elements with Total")
	}
	return check.Positive(ErrCall, "merge", "Size", c.Size)
}

// streamRun is one call, and the memory that calls share.
type streamRun struct {
	op    *Stream
	call  StreamCall
	rows  int
	units []float32 // two rows of the metric, of length 1
	own   State
}

func (r *streamRun) run(op *Stream, call *StreamCall) int {
	r.op, r.call, r.rows = op, *call, 0
	defer func() { r.call = StreamCall{} }()
	dim := op.cfg.MetricDim
	r.units = scratch.Floats(r.units, 2*dim)
	st := call.State
	if st == nil {
		st = &r.own
		st.fit(op)
	}
	for t := range call.X.Rows {
		size := float32(1)
		if call.Size != nil {
			size = call.Size[t]
		}
		x, metric := mat.Row(call.X, t), mat.Row(call.Metric, t)
		if !st.waiting {
			copy(st.x, x)
			copy(st.metric, metric)
			st.size, st.waiting = size, true
			st.n++
			continue
		}
		if r.similar(st.metric, metric) {
			r.put(st.n, st.x, x, st.size, size)
		} else {
			r.put(st.n-1, st.x, nil, st.size, 0)
			r.put(st.n, x, nil, size, 0)
		}
		st.waiting = false
		st.n++
	}
	if call.End && st.waiting {
		r.put(st.n-1, st.x, nil, st.size, 0)
		st.waiting = false
	}
	return r.rows
}

// similar tells whether two rows of the metric are more similar than Above.
func (r *streamRun) similar(a, b []float32) bool {
	dim := len(a)
	ia, ib := dense.InverseLength(a), dense.InverseLength(b)
	if ia == 0 || ib == 0 {
		return false
	}
	u, v := r.units[:dim], r.units[dim:2*dim]
	asm.Scale(u, ia, a)
	asm.Scale(v, ib, b)
	return asm.Dot(u, v) > r.op.cfg.Above
}

// put writes the row of one token, or of two merged, at the place of token kept.
func (r *streamRun) put(kept int64, a, b []float32, sizeA, sizeB float32) {
	c, d, total := &r.call, mat.Row(r.call.Dst, r.rows), sizeA
	if b == nil {
		copy(d, a)
	} else {
		total = sizeA + sizeB
		clear(d)
		asm.Axpy(d, sizeA/total, a)
		asm.Axpy(d, sizeB/total, b)
	}
	if c.Total != nil {
		c.Total[r.rows] = total
	}
	if c.Kept != nil {
		c.Kept[r.rows] = kept
	}
	r.rows++
}

// fit makes a state an empty one of op, in its memory.
func (st *State) fit(op *Stream) {
	st.op, st.n, st.waiting, st.size = op.cfg, 0, false, 0
	st.made = true
	st.x, st.metric = scratch.Floats(st.x, op.cfg.Dim), scratch.Floats(st.metric, op.cfg.MetricDim)
	clear(st.x)
	clear(st.metric)
}
