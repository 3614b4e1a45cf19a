package merge

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
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
// token must not stand before one of its own.
//
// It costs O(MetricDim + Dim) a token, on the caller's goroutine. A Stream is immutable and
// safe for concurrent use.
type Stream struct {
	cfg         StreamConfig
	fingerprint state.Fingerprint // of cfg
	scratch     scratch.List[streamRun]
}

// NewStream returns an operator, or an error that matches ErrConfig.
func NewStream(cfg StreamConfig) (*Stream, error) {
	switch {
	case cfg.MetricDim < 0 || cfg.Dim < 0 || max(cfg.MetricDim, cfg.Dim) > maxTokens:
		return nil, check.Errorf(ErrConfig, "merge: MetricDim is %d and Dim %d, want 0 to %d", cfg.MetricDim, cfg.Dim, maxTokens)
	case cfg.Above != cfg.Above || math.IsInf(float64(cfg.Above), 0):
		return nil, check.Errorf(ErrConfig, "merge: Above is %v, want a finite number", cfg.Above)
	}
	return &Stream{cfg: cfg, fingerprint: state.NewFingerprint("merge.Stream", cfg.numbers()...)}, nil
}

// numbers are what a stored state tells of its operator.
func (c *StreamConfig) numbers() []int64 {
	return []int64{int64(c.MetricDim), int64(c.Dim), int64(math.Float32bits(c.Above))}
}

// Forward merges a whole sequence and returns how many rows of dst, which has as many as
// x and shares no element with it or metric, it has set. Errors match ErrShape.
func (op *Stream) Forward(dst, x, metric blas32.General) (int, error) {
	return op.Run(context.Background(), &StreamCall{Dst: dst, X: x, Metric: metric, End: true})
}

// Step takes the next tokens, one or many, and returns how many rows of dst it has set: a
// token that waits for the second of its pair comes out with that one. Errors match those of
// Run.
func (op *Stream) Step(dst, x, metric blas32.General, st *State) (int, error) {
	if err := op.checkState(st); err != nil {
		return 0, err
	}
	return op.Run(context.Background(), &StreamCall{Dst: dst, X: x, Metric: metric, State: st})
}

// Room returns how many rows of dst a call of some tokens needs. st may be nil.
func (op *Stream) Room(tokens int, st *State) int {
	if st != nil {
		tokens += st.Waiting()
	}
	return tokens
}

// Run is Forward and Step with everything optional. Errors match ErrShape, ErrCall,
// ErrState or ErrFull, and nothing has then been written. When ctx is done Run returns
// ctx.Err() and how many rows it has set; the state stands after a whole number of tokens,
// which its Len tells.
func (op *Stream) Run(ctx context.Context, call *StreamCall) (int, error) {
	if err := check.Call("merge", ctx, call != nil); err != nil {
		return 0, err
	}
	if err := op.checkStream(call); err != nil {
		return 0, err
	}
	r := op.scratch.Get()
	defer op.scratch.Put(r)
	return r.mergePairs(ctx, op, call)
}

// Bytes returns 0: the operator has neither weights nor tables. States and working
// memory count for themselves.
func (op *Stream) Bytes() int64 { return 0 }

// ScratchBytes returns the working memory that a call takes, at the most, besides its
// arguments.
func (op *Stream) ScratchBytes() int64 { return 4*int64(3*op.cfg.MetricDim+op.cfg.Dim) + 4096 }
