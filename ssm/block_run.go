package ssm

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/state"
)

// pieceRows is how many tokens go through a block together.
const pieceRows = 512

// blockWork is the working memory of a call of a block.
type blockWork struct {
	group    parallel.Group
	segments segments // of the call

	conv convWork
	scan scanWork
	ssd  ssdWork

	block   *block
	call    BlockCall
	workers int

	// The piece that is taken through the block: n rows of the call, from row from on.
	from, n int
	list    []segment // rows are the piece's, from 0 on
	convs   []segment // list with the convolution's part of the states
	mixers  []segment // list with the recurrence's

	u     blas32.General // [n, wide]: what the first projection makes
	x     blas32.General // [n, D]: what the convolution makes
	y     blas32.General // [n, inner]: what the last projection reads
	small blas32.General // [n, R + 2 N]: what x_proj makes (Mamba)
	dt    blas32.General // [n, I]: what dt_proj makes (Mamba)
	gates [][]float32    // for each worker, a row that gates (Mamba2)

	uData, xData, yData, smallData, dtData []float32 // their memory

	project, mid, finish func(worker, i int)
}

// passAll takes the rows of the segments through the block, a piece after the other.
func (s *blockWork) passAll(ctx context.Context, b *block, call *BlockCall, workers int) error {
	if s.project == nil {
		s.project, s.mid, s.finish = s.projectRows, s.middleRows, s.finishRows
	}
	s.block, s.call, s.workers = b, *call, workers
	defer func() {
		s.call = BlockCall{}
		for _, list := range [...][]segment{s.list, s.convs, s.mixers} {
			clear(list)
		}
	}()
	for len(s.gates) < min(workers, call.X.Rows) {
		s.gates = append(s.gates, nil)
	}
	list, segment := s.segments.list, 0
	for s.from = list[0].From; s.from < list[len(list)-1].To; s.from += s.n {
		segment = s.cutPiece(segment)
		if err := s.passPiece(ctx); err != nil {
			return err
		}
	}
	return nil
}

// cutPiece takes the next rows of the segments, ending on a border of chunks where the
// piece ends within a segment, so that no bit depends on it. It returns the first
// segment that has rows left.
func (s *blockWork) cutPiece(first int) int {
	s.list, s.n = s.list[:0], 0
	list := s.segments.list
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
		s.list = append(s.list, segment{state.Segment{From: s.n, To: s.n + n, Pos: g.Pos + done, Values: g.Values}, g.filter})
		s.n += n
		if done+n < g.To-g.From {
			break
		}
	}
	window := s.block.conv.kind.Size
	s.convs, s.mixers = s.convs[:0], s.mixers[:0]
	for _, g := range s.list {
		values := g.Values
		g.Values = values[:window]
		s.convs = append(s.convs, g)
		g.Values = values[window:]
		s.mixers = append(s.mixers, g)
	}
	return first
}

// passPiece takes rows through the block.
func (s *blockWork) passPiece(ctx context.Context) error {
	b := s.block
	s.uData, s.yData = scratch.Floats(s.uData, s.n*b.wide), scratch.Floats(s.yData, s.n*b.inner)
	s.xData = scratch.Floats(s.xData, s.n*b.conv.taps.Cols)
	s.u, s.y = mat.Of(s.uData, s.n, b.wide), mat.Of(s.yData, s.n, b.inner)
	s.x = mat.Of(s.xData, s.n, b.conv.taps.Cols)
	if err := s.eachRows(ctx, s.project); err != nil {
		return err
	}
	if err := b.mixer.mix(ctx, s); err != nil {
		return err
	}
	return s.eachRows(ctx, s.finish)
}

// eachRows runs a task for every block of the piece's rows.
func (s *blockWork) eachRows(ctx context.Context, task func(worker, i int)) error {
	return s.group.RunAs(ctx, "ssm", s.workers, (s.n+dense.BlockRows-1)/dense.BlockRows, task)
}

// rowsOf returns the rows of task i.
func (s *blockWork) rowsOf(i int) (from, to int) {
	return i * dense.BlockRows, min((i+1)*dense.BlockRows, s.n)
}

func (s *blockWork) projectRows(_, i int) {
	from, to := s.rowsOf(i)
	s.block.in.ForwardIn(&s.group, mat.Rows(s.u, from, to), mat.Rows(s.call.X, s.from+from, s.from+to))
}

func (s *blockWork) middleRows(worker, i int) {
	from, to := s.rowsOf(i)
	s.block.mixer.middle(s, worker, from, to)
}

func (s *blockWork) finishRows(_, i int) {
	from, to := s.rowsOf(i)
	s.block.out.ForwardIn(&s.group, mat.Rows(s.call.Dst, s.from+from, s.from+to), mat.Rows(s.y, from, to))
}

// convolveColumns sets s.x to the convolution of columns of s.u.
func (s *blockWork) convolveColumns(ctx context.Context, from int) error {
	b := s.block
	return s.conv.convolve(ctx, b.conv, s.x, mat.Columns(s.u, from, b.conv.taps.Cols), s.convs, s.workers)
}
