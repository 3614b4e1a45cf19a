package maelre

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/merge"
)

// Call is a call of MAELRE with everything optional. Only X is needed.
type Call struct {
	// X is [tokens, D]: embeddings, positions in them.
	X blas32.General
	// Offsets packs several sequences: the first row of each and at last the number of
	// rows. They are encoded one after the other.
	Offsets []int
	// Sizes [tokens] are how many tokens each stands for, positive; nil is 1.
	Sizes []float32
	// Valid [tokens], if not nil, marks those that are not padding, which is left out
	// before the first block. What is in its rows does not matter.
	Valid []bool

	// Pooled [sequences, D] receives the mean of the last norm weighted by size, 0 of
	// no tokens; Logits [sequences, classes] what the head makes of it.
	Pooled, Logits blas32.General
	// Observe, if not nil, is called after every block, and once more after the last
	// norm. It must not keep what it is given.
	Observe func(Stage)
	// Workers is how many goroutines the call may use; 0 stands for the Config's.
	Workers int
}

// Stage is what a sequence has become after a block.
type Stage struct {
	// Sequence and Layer are its number and the block's; after the last norm Layer is
	// the number of blocks.
	Sequence, Layer int
	// Approximated tells whether the block's attention was.
	Approximated bool
	// Plan merged the tokens that entered the block (of the first, those of X that are
	// valid) into those that leave it; nil after the last norm.
	Plan *merge.Plan
	// X [tokens, D] and Sizes are the tokens.
	X     blas32.General
	Sizes []float32
}

// Forward encodes one sequence x [tokens, D]: dst [1, classes] receives the logits,
// or, without a head, dst [1, D] the pooled tokens; it shares no element with x. After the
// first call of a shape nothing is allocated. Errors match ErrShape.
func (m *Encoder) Forward(dst, x blas32.General) error {
	call := Call{X: x}
	if m.head != nil {
		call.Logits = dst
	} else {
		call.Pooled = dst
	}
	if dst.Rows == 0 {
		return check.Errorf(ErrShape, "maelre: dst has 0 rows, want 1")
	}
	return m.Run(context.Background(), &call)
}

// Run is Forward with everything optional, and an end: when ctx is done it returns
// ctx.Err() and leaves the outputs in an unspecified state. Errors about matrices
// match ErrShape, those about options ErrCall; both come before anything is written,
// except those of an Approximation or a Matching of the caller's.
func (m *Encoder) Run(ctx context.Context, call *Call) error {
	r := m.scratch.Get()
	defer m.scratch.Put(r)
	return r.encode(ctx, m, call)
}

// ScratchBytes returns the working memory that a call of one sequence holds, at the
// most, besides its arguments. An approximation or a matching of the caller's counts where
// it has a method ScratchBytes like those of this module.
func (m *Encoder) ScratchBytes(tokens int) int64 {
	n, d := int64(tokens), int64(m.dim)
	own := n * (6*d + d/int64(m.cfg.Heads) + 3)
	work := int64(m.hidden+m.dim) * dense.BlockRows * int64(parallel.Workers(m.cfg.Workers))
	few := min(tokens, m.cfg.SwitchTokens)
	const rest = 1 << 14 // headers, alignment, tasks
	bytes := 4*(own+work) + 40*n + m.exact.ScratchBytes(few, few) + rest
	switch a := m.cfg.Approximation.(type) {
	case interface{ ScratchBytes(queries, keys int) int64 }:
		bytes += a.ScratchBytes(tokens, tokens)
	case interface{ ScratchBytes(tokens int) int64 }:
		bytes += a.ScratchBytes(tokens)
	}
	if a, ok := m.cfg.Matching.(interface {
		ScratchBytes(tokens, metricDim int) int64
	}); ok {
		bytes += a.ScratchBytes(tokens, m.dim/m.cfg.Heads)
	}
	return bytes
}

// maxTokens bounds the tokens of a call, so that a plan's indices fit in an int32.
const maxTokens = math.MaxInt32 / 2

// checkCall reports what is wrong with a call, and returns its offsets.
func (r *encoderRun) checkCall(ctx context.Context, m *Encoder, c *Call) ([]int, error) {
	if err := check.Call("maelre", ctx, c != nil); err != nil {
		return nil, err
	}
	n := c.X.Rows
	if err := check.Matrix(ErrShape, "maelre", "X", c.X, -1, m.dim, "the width"); err != nil {
		return nil, err
	}
	if n > maxTokens {
		return nil, check.Errorf(ErrShape, "maelre: %d tokens, want at most %d", n, maxTokens)
	}
	r.one = [2]int{0, n}
	offsets := c.Offsets
	if offsets == nil {
		offsets = r.one[:]
	}
	if err := check.Offsets("maelre", "Offsets", offsets, n, -1); err != nil {
		return nil, err
	}
	if c.Sizes != nil {
		if err := check.Vector(ErrShape, "maelre", "Sizes", c.Sizes, n, "the tokens"); err != nil {
			return nil, err
		}
		if err := check.Positive(ErrCall, "maelre", "Sizes", c.Sizes); err != nil {
			return nil, err
		}
	}
	if c.Valid != nil && len(c.Valid) != n {
		return nil, check.Errorf(ErrShape, "maelre: Valid has %d elements, want the tokens = %d", len(c.Valid), n)
	}
	if err := check.Workers(ErrCall, "maelre", c.Workers); err != nil {
		return nil, err
	}
	r.workers = parallel.Choose(m.cfg.Workers, c.Workers)
	if m.head == nil && c.Logits.Rows > 0 {
		return nil, check.Errorf(ErrCall, "maelre: Logits of an encoder without a head")
	}
	for _, o := range [...]struct {
		name string
		m    blas32.General
		cols int
		what string
	}{{"Pooled", c.Pooled, m.dim, "the width"}, {"Logits", c.Logits, m.classes, "the classes"}} {
		if !mat.Given(o.m) {
			continue
		}
		if err := check.Matrix(ErrShape, "maelre", o.name, o.m, len(offsets)-1, o.cols, o.what); err != nil {
			return nil, err
		}
		if mat.Overlap(o.m, c.X) {
			return nil, check.Errorf(ErrShape, "maelre: %s shares elements with X", o.name)
		}
	}
	if mat.Overlap(c.Pooled, c.Logits) {
		return nil, check.Errorf(ErrShape, "maelre: Logits shares elements with Pooled")
	}
	return offsets, nil
}
