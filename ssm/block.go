package ssm

import (
	"context"
	"io"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
)

// Block is what Mamba and Mamba2 have in common, for models of either.
type Block interface {
	// Dim is the width of a token, Channels how many channels have a step dt: the inner
	// width of a Mamba, the heads of a Mamba2.
	Dim() int
	Channels() int
	// Identity and Rates are what filters of steps ask for.
	Identity() Identity
	Rates() blas32.General
	// Bytes is the memory of the weights, ScratchBytes the working memory of a call of one
	// sequence.
	Bytes() int64
	ScratchBytes(tokens int) int64
	// Forward sets dst from a whole sequence x, Step from the next tokens after those of a
	// state, StepBatch from one token after those of each of many; Run has every option. Rows
	// are tokens, [Dim] each.
	Forward(dst, x blas32.General) error
	Step(dst, x blas32.General, st *State) error
	StepBatch(dst, x blas32.General, states []*State) error
	Run(ctx context.Context, call *BlockCall) error
	// NewState makes an empty state, ReadState one that State.WriteTo wrote.
	NewState(cfg StateConfig) (*State, error)
	ReadState(r io.Reader) (*State, error)
}

var _, _ Block = (*Mamba)(nil), (*Mamba2)(nil)

// block is the frame of a Mamba block: projections around a convolution and a
// recurrence, some hundred tokens at a time. Its state is that of the convolution and
// after it that of the recurrence.
type block struct {
	dim, workers int // the width of a token; goroutines that a call may use
	kind         kind
	in, out      *dense.Linear // [wide, dim] and [dim, inner]
	wide, inner  int           // columns of what in makes, and of what out reads
	conv         *Conv
	mixer        mixer    // the recurrence
	scratch      *Scratch // the caller's, or the block's own
}

// Scratch is working memory that the blocks of a model share, as they run one after
// the other. The zero value is ready. It is safe for concurrent use, and keeps at
// most as many calls' as there are processors.
type Scratch struct{ list scratch.List[blockWork] }

func ownOr(s *Scratch) *Scratch {
	if s == nil {
		return new(Scratch)
	}
	return s
}

// mixer is what lies between the projections: what is special to Mamba or Mamba2.
type mixer interface {
	// mix sets s.y from s.u, for the segments of a piece.
	mix(ctx context.Context, s *blockWork) error
	// middle is what mix does with some rows, by s.mid.
	middle(s *blockWork, worker, from, to int)
	// workFloats bounds the working memory of n rows, in float32.
	workFloats(n, workers int) int64
	// Rates returns A, [channels, N].
	Rates() blas32.General
}

// identify makes the kind of a block of its name, the state of its recurrence, and a
// fingerprint of its weights, the convolution's included.
func (b *block) identify(name string, recurrence *kind, work int64, numbers []int64, matrices []blas32.General, vectors ...[]float32) {
	f := state.NewFingerprint(name, append(numbers, int64(b.conv.kind.Hash))...)
	f.Matrices(matrices...)
	f.Floats(vectors...)
	work += int64(b.dim)*int64(b.wide+b.inner) + b.conv.kind.Work + recurrence.Work
	b.kind = newKind(name, b.conv.kind.Size+recurrence.Size, f, work, recurrence.channels)
}

// Dim returns the width of a token.
func (b *block) Dim() int { return b.dim }

// Channels returns how many steps dt a token has: the channels of a Mamba, the heads
// of a Mamba2.
func (b *block) Channels() int { return b.kind.channels }

// Identity names the block and says how many steps dt a token has.
func (b *block) Identity() Identity { return b.kind.identity() }

// bytes is the memory of the weights that all blocks have.
func (b *block) bytes() int64 { return int64(b.in.Bytes()) + int64(b.out.Bytes()) + b.conv.Bytes() }

// ScratchBytes returns the working memory that a call of one sequence of that many
// tokens takes at most, besides its arguments. Blocks with one Scratch take it
// together: the most that one of them says, of Mamba and of Mamba2 blocks each.
func (b *block) ScratchBytes(tokens int) int64 {
	n, workers := min(max(tokens, 0), pieceRows), parallel.Workers(b.workers)
	return scratchBytes(int64(b.kind.Size) + int64(n)*int64(b.wide+b.inner+b.conv.taps.Cols) + b.mixer.workFloats(n, workers))
}

// NewState returns an empty state. Errors match ErrConfig or are those of the filter's
// source.
func (b *block) NewState(cfg StateConfig) (*State, error) { return b.kind.newState(cfg) }

// ReadState reads a state that WriteTo wrote of this block, or of one with the same
// fingerprint. Errors match ErrState or are those of r.
func (b *block) ReadState(r io.Reader) (*State, error) { return b.kind.readState(r) }

// readWindow sets conv [K-1, D] to the window of the convolution in a state.
func (b *block) readWindow(conv blas32.General, st *State) error {
	if err := b.kind.acceptRead(st, "conv", conv, b.conv.taps.Rows-1, b.conv.taps.Cols, "channels"); err != nil {
		return err
	}
	mat.Copy(conv, b.conv.window(st.fixed.Values))
	return nil
}

// recurrence returns the part of a state that belongs to the recurrence.
func (b *block) recurrence(st *State) []float32 { return st.fixed.Values[b.conv.kind.Size:] }

// negativeExp returns -exp(x): decay rates of their logarithms.
func negativeExp(x []float32) []float32 {
	out := make([]float32, len(x))
	asm.Exp(out, x)
	asm.Scale(out, -1, out)
	return out
}
