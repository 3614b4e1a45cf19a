package rope

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// rotateScratch is the working memory of a call.
type rotateScratch struct {
	group    parallel.Group
	task     func(worker, i int) // rotates taskRows rows from row i*taskRows on
	r        *Rotation
	call     Call    // a copy of the caller's
	taskRows int     // rows of a task
	tables   []table // of each worker
}

// taskElements is how many elements a task is about: a call with fewer runs on
// the caller's goroutine.
const taskElements = 1 << 16

// rotateAll rotates the rows of a call that was checked.
func (s *rotateScratch) rotateAll(ctx context.Context, r *Rotation, c Call) error {
	if s.task == nil {
		s.task = s.rotateTask
	}
	s.r, s.call = r, c
	defer func() { s.call = Call{} }()
	s.taskRows = max(taskElements/c.X.Cols, 1)
	tasks := (c.X.Rows-1)/s.taskRows + 1
	workers := min(parallel.Choose(r.cfg.Workers, c.Workers), tasks)
	for len(s.tables) < workers {
		s.tables = append(s.tables, newTable(r))
	}
	return s.group.RunAs(ctx, "rope", workers, tasks, s.task)
}

// rotateTask rotates the rows of task i.
func (s *rotateScratch) rotateTask(worker, i int) {
	r, c, t := s.r, &s.call, &s.tables[worker]
	width := c.X.Cols / r.heads // columns that share a table
	for row := i * s.taskRows; row < min((i+1)*s.taskRows, c.X.Rows); row++ {
		for head := range r.heads {
			t.fill(r, c, row, head)
			r.turn(mat.Part(c.Dst, row, head*width, width), mat.Part(c.X, row, head*width, width), t)
		}
	}
}

// turn rotates the heads of a row that share a table.
func (r *Rotation) turn(dst, x []float32, t *table) {
	headDim, from := r.cfg.HeadDim, r.cfg.Offset
	to := from + r.cfg.RotaryDim
	if to-from < headDim && &dst[0] != &x[0] { // features that stay as they are
		for h := 0; h < len(x); h += headDim {
			copy(dst[h:][:from], x[h:])
			copy(dst[h+to:h+headDim], x[h+to:])
		}
	}
	if from == 0 {
		t.turnHeads(r.cfg.Layout, dst, x, headDim)
		return
	}
	for h := 0; h < len(x); h += headDim {
		t.turnHeads(r.cfg.Layout, dst[h+from:h+to], x[h+from:h+to], to-from)
	}
}

// table is the cosines and sines of one row, with what they are made of. They have an
// element for each pair, or for Interleaved one for each feature, as the kernels take
// them.
type table struct {
	phase    []uint64 // [pairs], in 2^-64 turns
	top      []uint32 // the same in 2^-32 turns, for each cosine
	cos, sin []float32
}

// tableLength is the number of cosines of a row.
func (r *Rotation) tableLength() int {
	if r.cfg.Layout == Interleaved {
		return 2 * r.pairs
	}
	return r.pairs
}

// tableBytes is the memory of a table.
func (r *Rotation) tableBytes() int64 {
	const line = 64 // scratch.Floats aligns each list
	return 8*int64(r.pairs) + 12*int64(r.tableLength()) + 2*line
}

func newTable(r *Rotation) table {
	n := r.tableLength()
	return table{make([]uint64, r.pairs), make([]uint32, n), scratch.Floats(nil, n), scratch.Floats(nil, n)}
}

// turnHeads rotates the first features of every headDim.
func (t *table) turnHeads(layout Layout, dst, x []float32, headDim int) {
	if layout == Half {
		asm.RotateHalf(dst, x, headDim, t.cos, t.sin)
	} else {
		kernel.RotateInterleaved(dst, x, headDim, t.cos, t.sin)
	}
}

// fill computes the table of a row.
func (t *table) fill(r *Rotation, c *Call, row, head int) {
	sign, factor := uint64(1), r.tableFactor()
	if c.From != nil {
		factor /= c.From.tableFactor()
	}
	if c.Inverse {
		sign, factor = ^uint64(0), 1/factor
	}
	r.phases(t.phase, &c.Positions, row, head, sign)
	if c.From != nil {
		c.From.accumulate(t.phase, &c.FromPositions, row, min(head, c.From.heads-1), -sign)
	}
	if r.cfg.Layout == Half {
		top := t.top[:len(t.phase)]
		for i, p := range t.phase {
			top[i] = high(p)
		}
	} else { // the cosine of -p and p is the same, the sine has the kernel's signs
		top := t.top[:2*len(t.phase)]
		for i, p := range t.phase {
			h := high(p)
			top[2*i], top[2*i+1] = -h, h
		}
	}
	kernel.CosSin(t.cos, t.sin, t.top, float32(factor))
	if r.decay != nil {
		r.applyXPos(t, c, row)
	}
}

// tableFactor is the factor of cosines and sines.
func (r *Rotation) tableFactor() float64 {
	if r.cfg.SeparateFactor {
		return 1
	}
	return r.factor
}

// CosSin writes the cosines and sines, times the attention factor, of every row
// of positions: [tokens, RotaryDim/2], or [tokens, heads * RotaryDim/2] for
// learned frequencies, in both layouts. It is for callers that rotate by
// themselves. Errors match ErrShape.
func (r *Rotation) CosSin(cos, sin blas32.General, p Positions) error {
	cols := r.heads * r.pairs
	if err := first(check.Matrix(ErrShape, "rope", "cos", cos, -1, cols, "heads*RotaryDim/2"),
		check.Matrix(ErrShape, "rope", "sin", sin, cos.Rows, cols, "heads*RotaryDim/2"),
		p.checkRows("positions", cos.Rows, r.axes)); err != nil {
		return err
	}
	if mat.Overlap(cos, sin) {
		return check.Errorf(ErrShape, "rope: cos shares elements with sin")
	}
	phase, top := make([]uint64, r.pairs), make([]uint32, r.pairs)
	for row := range cos.Rows {
		c, s := mat.Rows(cos, row, row+1).Data, mat.Rows(sin, row, row+1).Data
		for head := range r.heads {
			r.phases(phase, &p, row, head, 1)
			for i, v := range phase {
				top[i] = high(v)
			}
			kernel.CosSin(c[head*r.pairs:][:r.pairs], s[head*r.pairs:][:r.pairs], top, float32(r.tableFactor()))
		}
	}
	return nil
}
