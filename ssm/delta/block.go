package delta

import (
	"context"
	"io"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/pack"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// Block is what GatedDelta, KDA, RWKV7 and RWKV7FFN have in common, for models of them.
type Block interface {
	// Dim is the width of a token.
	Dim() int
	// Fingerprint tells blocks with another Config or other weights apart.
	Fingerprint() uint64
	// Bytes is the memory of the weights, StateBytes that of a state, ScratchBytes the
	// working memory of a call of one sequence.
	Bytes() int64
	StateBytes(tokens int) int64
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

var _, _, _, _ Block = (*GatedDelta)(nil), (*KDA)(nil), (*RWKV7)(nil), (*RWKV7FFN)(nil)

// Scratch is working memory that the blocks of a model share, as they run one after the
// other. The zero value is ready. It is safe for concurrent use, and keeps at most as
// many calls' as there are processors.
type Scratch struct{ list scratch.List[blockWork] }

func ownOr(s *Scratch) *Scratch {
	if s == nil {
		return new(Scratch)
	}
	return s
}

// block is the frame of a block: its calls, its states, and some hundred tokens at a
// time.
type block struct {
	dim, workers int // the width of a token; goroutines that a call may use
	kind         kind
	body         body
	weights      int64    // bytes
	scratch      *Scratch // the caller's, or the block's own
	first        firstUse
	window       int // floats of a state that are rows before the next one
}

// body is what is special to a block.
type body interface {
	// pass takes the rows of a piece, s.in(), through the block, to s.out().
	pass(ctx context.Context, s *blockWork) error
	// workFloats bounds the working memory of n rows, in float32.
	workFloats(n, workers int) int64
}

// firstUse is what a block does with BlockCall.First.
type firstUse uint8

const (
	firstUnused firstUse = iota
	firstWritten
	firstRead
)

// BlockCall is a call of a block with everything optional.
type BlockCall struct {
	// Dst and X are [n, Dim]; Dst may be X.
	Dst, X blas32.General
	// First [n, Dim] are the values v of a model's first layer, for RWKV7 alone: the block
	// of that layer writes them, where First is given, and the others read them.
	First blas32.General
	// State is where the sequence begins, and is brought up to date; nil is an empty one,
	// and nothing kept.
	State *State
	// Offsets packs several sequences into one call: the first row of each and at last n.
	// States, if given, has a state for each; without Offsets each is for one row.
	Offsets []int
	States  []*State
	// Workers is how many goroutines the call may use, 0 for the Config's.
	Workers int
}

// Dim returns the width of a token.
func (b *block) Dim() int { return b.dim }

// Fingerprint tells blocks with another Config or other weights apart.
func (b *block) Fingerprint() uint64 { return b.kind.Hash }

// Bytes returns the memory of the weights.
func (b *block) Bytes() int64 { return b.weights }

// StateBytes returns the memory of a state, without snapshots; it does not grow.
func (b *block) StateBytes(int) int64 { return 4 * int64(b.kind.Size) }

// ScratchBytes returns the working memory that a call of one sequence of that many tokens
// takes at most, besides its arguments. Blocks with one Scratch take it together: the most
// that one of them says, of each type.
func (b *block) ScratchBytes(tokens int) int64 {
	n, workers := min(max(tokens, 0), pieceRows), parallel.Workers(b.workers)
	return scratchBytes(int64(b.kind.Size+b.window) + b.body.workFloats(n, workers))
}

// NewState returns an empty state. Errors match ErrConfig.
func (b *block) NewState(cfg StateConfig) (*State, error) { return b.kind.newState(cfg) }

// ReadState reads a state that WriteTo wrote of this block, or of one with the same
// fingerprint. Errors match ErrState or are those of r.
func (b *block) ReadState(r io.Reader) (*State, error) { return b.kind.readState(r) }

// Forward runs a whole sequence, dst and x [n, Dim], from an empty state. dst may be x.
// Working memory does not depend on n; after the first call nothing is allocated. Errors
// match ErrShape, or ErrCall for a block that needs more than x.
func (b *block) Forward(dst, x blas32.General) error {
	return b.Run(context.Background(), &BlockCall{Dst: dst, X: x})
}

// Step runs the next tokens, one or many, after those the state has seen. Errors match
// those of Run.
func (b *block) Step(dst, x blas32.General, st *State) error {
	if err := b.kind.accept("State", st); err != nil {
		return err
	}
	return b.Run(context.Background(), &BlockCall{Dst: dst, X: x, State: st})
}

// StepBatch runs one token, a row, for each of many states, reading the weights once: Run
// with States. Errors match those of Run.
func (b *block) StepBatch(dst, x blas32.General, states []*State) error {
	return b.Run(context.Background(), &BlockCall{Dst: dst, X: x, States: pack.EachRow(states)})
}

// Run is Forward, Step and StepBatch with everything optional. Errors match ErrShape,
// ErrCall, ErrState or ErrFull, or are ctx.Err(). After an error states are as they were,
// and Dst is unspecified. A call of one token, or of little work, looks at ctx once,
// before it begins.
func (b *block) Run(ctx context.Context, call *BlockCall) error {
	if err := b.checkCall(ctx, call); err != nil {
		return err
	}
	s := b.scratch.list.Get()
	defer b.scratch.list.Put(s)
	batch := pack.Batch[*State]{Rows: call.X.Rows, Offsets: call.Offsets, State: call.State, States: call.States}
	ctx, err := s.segments.Begin(ctx, &b.kind.Kind, batch, inside, false)
	if err != nil {
		return err
	}
	return s.segments.End(s.passAll(ctx, b, call, parallel.Choose(b.workers, call.Workers)))
}

func (b *block) checkCall(ctx context.Context, call *BlockCall) error {
	if err := check.Call("delta", ctx, call != nil); err != nil {
		return err
	}
	n, given := call.X.Rows, mat.Given(call.First)
	if err := check.Matrix(ErrShape, "delta", "X", call.X, n, b.dim, "Dim"); err != nil {
		return err
	}
	if err := check.Output(ErrShape, "delta", call.Dst, n, b.dim, "Dim", call.X, true); err != nil {
		return err
	}
	switch {
	case b.first == firstRead && !given:
		return check.Errorf(ErrCall, "delta: First is missing, want the values of the first layer")
	case b.first == firstUnused && given:
		return check.Errorf(ErrCall, "delta: First is given, which the block has no use for")
	}
	if given {
		if err := check.Matrix(ErrShape, "delta", "First", call.First, n, b.dim, "Dim"); err != nil {
			return err
		}
		if mat.Overlap(call.First, call.Dst) || b.first == firstWritten && mat.Overlap(call.First, call.X) {
			return check.Errorf(ErrShape, "delta: First shares elements with dst or X")
		}
	}
	return check.Workers(ErrCall, "delta", call.Workers)
}

// pieceRows is how many tokens go through a block together.
const pieceRows = 512

// blockWork is the working memory of a call of a block.
type blockWork struct {
	group    parallel.Group
	segments segments // of the call
	sweep    work     // of the recurrence

	block   *block
	call    BlockCall
	workers int

	// The piece that is taken through the block: n rows of the call, from row from on.
	from, n int
	list    []segment // rows are the piece's, from 0 on; values are nil of a sequence that is whole in it and without a state
	mixers  []segment // list with the recurrence's part of the states

	carried [2][]float32 // states of sequences without one that go on from piece to piece
	carry   int          // which of them the last such sequence has
	none    []float32    // zeros, in place of what stands before a sequence

	rows [12]rowsOf // matrices [n, ...], as the body says
	own  []ownRows  // of each worker

	gated *gated // whose tasks the funcs below are
	rwkv  *RWKV7
	ffn   *RWKV7FFN
	tasks [6]func(worker, i int)
}

// rowsOf is a matrix of a row for each token of a piece, and its memory.
type rowsOf struct {
	blas32.General
	data []float32
}

// size gives the matrix n rows of so many columns.
func (r *rowsOf) size(n, cols int) {
	r.data = scratch.Floats(r.data, n*cols)
	r.General = mat.Of(r.data, n, cols)
}

// ownRows are matrices of one worker, for a task's rows.
type ownRows [3]rowsOf

// passAll takes all rows through the block, a piece after the other.
func (s *blockWork) passAll(ctx context.Context, b *block, call *BlockCall, workers int) error {
	s.block, s.call, s.workers = b, *call, workers
	defer func() {
		s.call = BlockCall{}
		clear(s.list)
		clear(s.mixers)
	}()
	if len(s.none) < b.window {
		s.none = make([]float32, b.window)
	}
	for len(s.own) < min(workers, call.X.Rows) {
		s.own = append(s.own, ownRows{})
	}
	segment := 0
	for s.from = 0; s.from < call.X.Rows; s.from += s.n {
		segment = s.cutPiece(segment)
		if err := b.body.pass(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// cutPiece takes the next rows of the segments, ending on a border of chunks where the
// piece ends within a segment, so that no bit depends on it. It returns the first segment
// that has rows left.
func (s *blockWork) cutPiece(first int) int {
	s.list, s.n = s.list[:0], 0
	list := s.segments.List
	for ; first < len(list) && s.n < pieceRows; first++ {
		g := &list[first]
		done := max(s.from+s.n-g.From, 0) // rows of it in earlier pieces
		n := g.To - g.From - done
		if left := pieceRows - s.n; n > left {
			n = left - (g.Pos+done+left)%Chunk
			if n <= 0 { // the whole sequence waits for the next piece
				break
			}
		}
		values := g.Values
		if values == nil && n < g.To-g.From { // it does not end here, or has not begun here
			if done == 0 {
				s.carry = 1 - s.carry // the other one's sequence may end in this piece
				s.carried[s.carry] = scratch.Floats(s.carried[s.carry], s.block.kind.Size)
				clear(s.carried[s.carry])
			}
			values = s.carried[s.carry]
		}
		s.list = append(s.list, segment{From: s.n, To: s.n + n, Pos: g.Pos + done, Values: values})
		s.n += n
		if done+n < g.To-g.From {
			break
		}
	}
	return first
}

// in and out are the piece's rows of X and Dst.
func (s *blockWork) in() blas32.General  { return mat.Rows(s.call.X, s.from, s.from+s.n) }
func (s *blockWork) out() blas32.General { return mat.Rows(s.call.Dst, s.from, s.from+s.n) }

// recur runs the recurrence, whose states begin at element at of the values.
func (s *blockWork) recur(ctx context.Context, op *Recurrence, call *Call, at int) error {
	s.mixers = s.mixers[:0]
	for _, g := range s.list {
		if g.Values != nil {
			g.Values = g.Values[at:][:op.kind.Size]
		}
		s.mixers = append(s.mixers, g)
	}
	return s.sweep.sweep(ctx, op, call, s.mixers, s.workers)
}

// eachRows runs a task for every block of the piece's rows.
func (s *blockWork) eachRows(ctx context.Context, task func(worker, i int)) error {
	return s.group.RunAs(ctx, "delta", s.workers, (s.n+dense.BlockRows-1)/dense.BlockRows, task)
}

// taskRows returns the rows of task i.
func (s *blockWork) taskRows(i int) (from, to int) {
	return i * dense.BlockRows, min((i+1)*dense.BlockRows, s.n)
}

// before calls f with the rows of each sequence among rows from to to of the piece, and
// with the window rows that stand before them: rows of x, of the states, whose first
// elements are the window, or of both, copied to a matrix of the caller's.
func (s *blockWork) before(x, memory blas32.General, from, to int, f func(from, to int, window blas32.General)) {
	for i := range s.list {
		g := &s.list[i]
		a, b := max(from, g.From), min(to, g.To)
		if a >= b {
			continue
		}
		window := mat.Of(s.start(g, memory.Rows*memory.Cols), memory.Rows, memory.Cols)
		if inside := min(a-g.From, memory.Rows); inside > 0 {
			mat.Copy(memory, mat.Rows(window, inside, memory.Rows))
			mat.Copy(mat.Rows(memory, memory.Rows-inside, memory.Rows), mat.Rows(x, a-inside, a))
			window = memory
		}
		f(a, b, window)
	}
}

// start returns the first n values of a sequence's state: what stands before its rows.
func (s *blockWork) start(g *segment, n int) []float32 {
	if g.Values != nil {
		return g.Values[:n]
	}
	return s.none[:n]
}

// keepWindow makes the first elements of each sequence's state its last rows of x.
func (s *blockWork) keepWindow(x blas32.General, rows, at int) {
	for i := range s.list {
		g := &s.list[i]
		if g.Values == nil {
			continue
		}
		window, n := mat.Of(g.Values[at:], rows, x.Cols), g.To-g.From
		old := max(rows-n, 0) // rows that stay, further up
		copy(window.Data[:old*window.Cols], window.Data[(rows-old)*window.Cols:])
		mat.Copy(mat.Rows(window, old, rows), mat.Rows(x, g.To-(rows-old), g.To))
	}
}
