package ssm

import (
	"context"
	"io"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// BlockCall is a call of a block with everything optional.
type BlockCall struct {
	// Dst and X are [n, Dim]; Dst may be X.
	Dst, X blas32.General
	// State is where the sequence begins, and is brought up to date; nil is an empty
	// one, and nothing kept.
	State *State
	// Offsets packs several sequences into one call: the first row of each and at
	// last n. States, if given, has a state for each.
	Offsets []int
	States  []*State
	// Filter changes dt: of channels in a Mamba, of heads in a Mamba2; behind that of
	// a state (StateConfig).
	Filter DeltaFilter
	// Workers is how many goroutines the call may use, 0 for the configuration's.
	Workers int
}

// Block is what Mamba and Mamba2 have in common, for models of either.
type Block interface {
	Dim() int
	Channels() int
	Identity() Identity
	Rates() blas32.General
	Bytes() int
	ScratchBytes(tokens int) int64
	Forward(dst, x blas32.General) error
	Step(dst, x blas32.General, st *State) error
	StepBatch(dst, x blas32.General, states []*State) error
	Run(ctx context.Context, call *BlockCall) error
	NewState(cfg StateConfig) (*State, error)
	ReadState(r io.Reader) (*State, error)
}

// block is the frame of a Mamba block: projections around a convolution and a
// recurrence, some hundred tokens at a time.
type block struct {
	dim, workers int
	kind         kind
	in, out      *dense.Linear
	wide, inner  int // columns of in, rows of out
	conv         *Conv
	mixer        mixer
	scratch      *Scratch
}

// Scratch is working memory that the blocks of a model share, as they run one after
// the other. The zero value is ready. It is safe for concurrent use, and holds at
// most as many calls' as there are processors.
type Scratch struct{ list scratch.List[blockScratch] }

func ownOr(s *Scratch) *Scratch {
	if s == nil {
		return new(Scratch)
	}
	return s
}

// mixer is what lies between the projections.
type mixer interface {
	// mix sets s.y from s.u, for the segments of a piece.
	mix(ctx context.Context, s *blockScratch) error
	// middle is what mix does with some rows, by s.mid.
	middle(s *blockScratch, worker, from, to int)
	// holds bounds the working memory of n rows, in float32.
	holds(n, workers int) int64
	// Rates returns A, [channels, N].
	Rates() blas32.General
}

// pieceRows is how many tokens go through a block together.
const pieceRows = 512

type blockScratch struct {
	group     parallel.Group
	sequences sequences
	conv      convScratch
	scan      scanScratch
	ssd       ssdScratch

	block   *block
	call    BlockCall
	from    int // the piece's first row
	n       int // and number of rows
	workers int
	list    []segment // of the piece, from row 0 on: of convolution and recurrence
	convs   []segment
	mixers  []segment

	u, x, y              blas32.General // projections, behind the convolution, in front of the last projection
	uData, xData, yData  []float32
	small                blas32.General // x_proj's output
	smallData, dtData    []float32
	dt                   blas32.General
	gates                [][]float32
	project, mid, finish func(worker, i int)
}

// Dim returns the width of a token.
func (b *block) Dim() int { return b.dim }

// Channels returns how many steps dt a token has: the channels of a Mamba, the heads
// of a Mamba2.
func (b *block) Channels() int { return b.kind.channels }

// Identity names the block and says how many steps dt a token has.
func (b *block) Identity() Identity { return b.kind.identity() }

// Bytes returns the memory of the projections' weights.
func (b *block) Bytes() int { return b.in.Bytes() + b.out.Bytes() }

// ScratchBytes returns the working memory that a call of one sequence of so many
// tokens holds, at the most, besides its arguments. Blocks with one Scratch hold it
// together: the most that one of them says, of Mamba and of Mamba2 blocks each.
func (b *block) ScratchBytes(tokens int) int64 {
	n, workers := min(tokens, pieceRows), parallel.Workers(b.workers)
	return scratchBytes(int64(b.kind.size) + int64(n)*int64(b.wide+b.inner+b.conv.taps.Cols) + b.mixer.holds(n, workers))
}

// scratchBytes is the memory of so many float32, and of the lists beside them.
func scratchBytes(floats int64) int64 {
	const rest = 16 << 10
	return 4*floats + rest
}

// NewState returns an empty state.
func (b *block) NewState(cfg StateConfig) (*State, error) { return b.kind.newState(cfg) }

// Forward runs a whole sequence, dst and x [n, Dim], from an empty state. dst may
// be x. Working memory does not depend on n; after the first call nothing is
// allocated.
func (b *block) Forward(dst, x blas32.General) error {
	return b.Run(context.Background(), &BlockCall{Dst: dst, X: x})
}

// Step runs the next tokens, one or many, behind those the state has seen.
func (b *block) Step(dst, x blas32.General, st *State) error {
	if err := b.kind.check("the state", st); err != nil {
		return err
	}
	return b.Run(context.Background(), &BlockCall{Dst: dst, X: x, State: st})
}

// StepBatch runs one token, a row, for each of many states; the weights are read
// once.
func (b *block) StepBatch(dst, x blas32.General, states []*State) error {
	return b.run(context.Background(), &BlockCall{Dst: dst, X: x}, packing{states: states, each: true})
}

// Run is Forward, Step and StepBatch with everything optional. Errors match
// ErrShape or, once ctx is done, ctx.Err(); states then stand where they stood, and
// Dst is unspecified.
func (b *block) Run(ctx context.Context, call *BlockCall) error {
	return b.run(ctx, call, packing{state: call.State, offsets: call.Offsets, states: call.States})
}

func (b *block) run(ctx context.Context, call *BlockCall, p packing) error {
	if err := check.Matrix(ErrShape, "ssm", "X", call.X, -1, b.dim, "Dim"); err != nil {
		return err
	}
	if err := check.Output(ErrShape, "ssm", call.Dst, call.X.Rows, b.dim, "Dim", call.X, true); err != nil {
		return err
	}
	workers, err := callWorkers(call.Workers, b.workers)
	if err != nil {
		return err
	}
	s := b.scratch.list.Get()
	defer b.scratch.list.Put(s)
	if err := s.sequences.begin(&b.kind, call.X.Rows, p, mayStop(ctx, call.Filter)); err != nil {
		return err
	}
	err = s.run(ctx, b, call, workers)
	s.sequences.end(err)
	return err
}

func (s *blockScratch) run(ctx context.Context, b *block, call *BlockCall, workers int) error {
	if s.project == nil {
		s.project, s.mid, s.finish = s.runProject, s.runMiddle, s.runFinish
	}
	s.block, s.call, s.workers = b, *call, workers
	defer func() {
		s.call = BlockCall{}
		for _, list := range [...][]segment{s.list, s.convs, s.mixers} {
			clear(list)
		}
	}()
	for len(s.gates) < workers {
		s.gates = append(s.gates, nil)
	}
	segment := 0
	for s.from = 0; s.from < call.X.Rows; s.from += s.n {
		segment = s.cut(segment)
		if err := s.piece(ctx); err != nil {
			return err
		}
	}
	return nil
}

// cut takes the next rows of the segments, ending on a border of chunks where the
// piece ends within a segment, so that no bit depends on it. It returns the first
// segment that has rows left.
func (s *blockScratch) cut(first int) int {
	s.list, s.n = s.list[:0], 0
	list := s.sequences.list
	for ; first < len(list) && s.n < pieceRows; first++ {
		g := &list[first]
		done := max(s.from+s.n-g.from, 0) // rows of it in earlier pieces
		n := g.to - g.from - done
		if left := pieceRows - s.n; n > left {
			n = left - (g.pos+done+left)%Chunk
			if n <= 0 { // the whole sequence waits for the next piece
				break
			}
		}
		s.list = append(s.list, segment{from: s.n, to: s.n + n, pos: g.pos + done, values: g.values, filter: g.filter})
		s.n += n
		if done+n < g.to-g.from {
			break
		}
	}
	window := s.block.conv.kind.size
	s.convs, s.mixers = s.convs[:0], s.mixers[:0]
	for _, g := range s.list {
		values := g.values
		g.values = values[:window]
		s.convs = append(s.convs, g)
		g.values = values[window:]
		s.mixers = append(s.mixers, g)
	}
	return first
}

// piece takes rows through the block.
func (s *blockScratch) piece(ctx context.Context) error {
	b := s.block
	s.uData, s.yData = scratch.Floats(s.uData, s.n*b.wide), scratch.Floats(s.yData, s.n*b.inner)
	s.xData = scratch.Floats(s.xData, s.n*b.conv.taps.Cols)
	s.u, s.y = mat.Of(s.uData, s.n, b.wide), mat.Of(s.yData, s.n, b.inner)
	s.x = mat.Of(s.xData, s.n, b.conv.taps.Cols)
	if err := s.tasks(ctx, s.project); err != nil {
		return err
	}
	if err := b.mixer.mix(ctx, s); err != nil {
		return err
	}
	return s.tasks(ctx, s.finish)
}

// tasks runs a task for every block of the piece's rows.
func (s *blockScratch) tasks(ctx context.Context, task func(worker, i int)) error {
	return wrap(s.group.Run(ctx, s.workers, (s.n+dense.BlockRows-1)/dense.BlockRows, task))
}

func (s *blockScratch) rows(i int) (from, to int) {
	return i * dense.BlockRows, min((i+1)*dense.BlockRows, s.n)
}

func (s *blockScratch) runProject(_, i int) {
	from, to := s.rows(i)
	s.block.in.Forward(mat.Rows(s.u, from, to), mat.Rows(s.call.X, s.from+from, s.from+to))
}

func (s *blockScratch) runMiddle(worker, i int) {
	from, to := s.rows(i)
	s.block.mixer.middle(s, worker, from, to)
}

func (s *blockScratch) runFinish(_, i int) {
	from, to := s.rows(i)
	s.block.out.Forward(mat.Rows(s.call.Dst, s.from+from, s.from+to), mat.Rows(s.y, from, to))
}

// convolve sets s.x to the convolution of columns of s.u.
func (s *blockScratch) convolve(ctx context.Context, from int) error {
	b := s.block
	return s.conv.run(ctx, b.conv, s.x, mat.Columns(s.u, from, b.conv.taps.Cols), s.convs, s.workers)
}

// finishKind names a block's state and sums up its weights.
func (b *block) finishKind(name string, size int, matrices []blas32.General, hashes ...uint64) {
	b.kind = kind{name: name, size: b.conv.kind.size + size, channels: b.mixer.Rates().Rows}
	f := newFingerprint(name)
	for _, m := range matrices {
		for t := 0; t < m.Rows; t += m.Rows/64 + 1 {
			f.floats(m.Data[t*m.Stride:][:min(m.Cols, 64)])
		}
	}
	for _, h := range append(hashes, b.conv.kind.hash) {
		f.add(uint32(h))
		f.add(uint32(h >> 32))
	}
	b.kind.hash = uint64(f)
}

// shape is what a weight must be.
type shape struct {
	name       string
	m          blas32.General
	rows, cols int
	what       string
}

func checkShapes(list ...shape) error {
	for _, s := range list {
		if err := check.Matrix(ErrConfig, "ssm", s.name, s.m, s.rows, s.cols, s.what); err != nil {
			return err
		}
	}
	return nil
}

// length is how many elements a weight must have.
type length struct {
	name     string
	v        []float32
	n        int
	what     string
	optional bool
}

func checkLengths(list ...length) error {
	for _, l := range list {
		if l.v == nil && l.optional {
			continue
		}
		if err := check.Vector(ErrConfig, "ssm", l.name, l.v, l.n, l.what); err != nil {
			return err
		}
	}
	return nil
}

// size is a number of a Config, at least 1.
type size struct {
	name string
	n    int
}

func checkSizes(list ...size) error {
	for _, s := range list {
		if s.n <= 0 || s.n > maxSize {
			return check.Errorf(ErrConfig, "ssm: %s is %d, want 1 to %d", s.name, s.n, maxSize)
		}
	}
	return nil
}

func checkFormat(f asm.Format) error {
	if f > asm.Float16 {
		return check.Errorf(ErrConfig, "ssm: Format is %d", f)
	}
	return nil
}

// negativeExp returns -exp(x): decay rates of their logarithms.
func negativeExp(x []float32) []float32 {
	out := make([]float32, len(x))
	asm.Exp(out, x)
	asm.Scale(out, -1, out)
	return out
}
