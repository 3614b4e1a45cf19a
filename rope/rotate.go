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

// Rotate rotates x in place, its first row standing at position start and every
// other one position on. x is [tokens, heads * HeadDim] for any number of heads:
// queries, keys, or the columns of a fused buffer that hold both. Positions with
// several axes are the same on all of them. start may be negative.
//
// It costs 3 flop for each feature and, for each row, the cosines and sines of
// RotaryDim/2 angles. After the first call of a shape it allocates nothing.
func (r *Rotation) Rotate(x blas32.General, start int64) error {
	return r.Run(context.Background(), &Call{X: x, Positions: Positions{Start: start}})
}

// RotateAt rotates x in place, row t standing at position positions[t], or with
// several axes at positions[t*Axes : (t+1)*Axes].
func (r *Rotation) RotateAt(x blas32.General, positions []int64) error {
	return r.Run(context.Background(), &Call{X: x, Positions: Positions{At: positions}})
}

// Shift moves keys that were rotated by r, at any positions, by delta positions
// (on every axis): a K-shift. The attention factor is not applied again. It works
// on what Rotate left, so that in float32 each shift adds a rounding of 1e-7;
// where keys are shifted many times, keep their positions and shift once, or
// cache them unrotated.
func (r *Rotation) Shift(k blas32.General, delta int64) error {
	return r.Run(context.Background(), &Call{X: k, Positions: Positions{Start: delta, still: true}, From: r, FromPositions: Positions{still: true}})
}

// Positions says where the rows of a matrix stand. The zero value is 0, 1, 2, ...
type Positions struct {
	// Start is the position of the first row, where neither At nor Fractional is given.
	Start int64
	// At has an element for each row and axis, [tokens, Axes].
	At []int64
	// Fractional is the same for positions that are not integers.
	Fractional []float64

	still bool // all rows stand at Start
}

// Call is a call of Rotation with everything optional.
type Call struct {
	// X is [tokens, heads * HeadDim]. The zero Dst is X itself; otherwise Dst is of
	// the same shape and overlaps X nowhere.
	Dst, X blas32.General
	Positions
	// Inverse takes back what the same call without it does.
	Inverse bool
	// From says that X holds keys already rotated by another scheme, or by the same
	// at other positions: they are brought from FromPositions in From to Positions in
	// this rotation, attention factors included. Widths and layouts must agree.
	From          *Rotation
	FromPositions Positions
	// Keys and Center are for xPos.
	Keys   bool
	Center int64
}

// Run does what a Call says. When ctx is done it returns ctx.Err(), some rows
// being rotated and others not.
func (r *Rotation) Run(ctx context.Context, call *Call) error {
	c := *call
	headDim := r.cfg.HeadDim
	if err := check.Matrix(ErrShape, "rope", "x", c.X, -1, c.X.Cols, "itself"); err != nil {
		return err
	}
	switch {
	case c.X.Cols < 0 || c.X.Cols%headDim != 0:
		return check.Errorf(ErrShape, "rope: x has %d columns, want a multiple of HeadDim = %d", c.X.Cols, headDim)
	case r.heads > 1 && c.X.Cols != r.heads*headDim:
		return check.Errorf(ErrShape, "rope: x has %d columns, want heads*HeadDim = %d", c.X.Cols, r.heads*headDim)
	}
	if c.Dst.Data == nil && c.Dst.Rows == 0 && c.Dst.Cols == 0 {
		c.Dst = c.X
	} else if err := check.Output(ErrShape, "rope", c.Dst, c.X.Rows, c.X.Cols, "x's", c.X, true); err != nil {
		return err
	}
	if err := r.checkCall(&c, c.X.Rows); err != nil {
		return err
	}
	if c.X.Rows == 0 || c.X.Cols == 0 {
		return ctx.Err()
	}
	s := r.scratch.Get()
	defer r.scratch.Put(s)
	return s.rotate(ctx, r, c)
}

func (r *Rotation) checkCall(c *Call, rows int) error {
	if err := c.Positions.check("Positions", rows, r.axes); err != nil {
		return err
	}
	if r.decay != nil {
		if err := r.checkXPos(c, rows); err != nil {
			return err
		}
	}
	f := c.From
	if f == nil {
		return nil
	}
	switch {
	case f.cfg.HeadDim != r.cfg.HeadDim || f.cfg.RotaryDim != r.cfg.RotaryDim || f.cfg.Layout != r.cfg.Layout:
		return configErrorf("From rotates %d of %d features, %v, want %d of %d, %v",
			f.cfg.RotaryDim, f.cfg.HeadDim, f.cfg.Layout, r.cfg.RotaryDim, r.cfg.HeadDim, r.cfg.Layout)
	case f.heads > 1 && f.heads != r.heads:
		return configErrorf("From has frequencies for %d heads, want %d", f.heads, r.heads)
	case f.decay != nil || r.decay != nil:
		return configErrorf("From cannot be used with xPos, whose keys are kept unrotated")
	}
	return c.FromPositions.check("FromPositions", rows, f.axes)
}

func (p *Positions) check(name string, rows, axes int) error {
	for _, list := range []struct {
		field string
		n     int
		given bool
	}{{"At", len(p.At), p.At != nil}, {"Fractional", len(p.Fractional), p.Fractional != nil}} {
		if list.given && (list.n%axes != 0 || list.n/axes != rows) {
			return check.Errorf(ErrShape, "rope: %s.%s has %d elements, want %d rows * %d axes", name, list.field, list.n, rows, axes)
		}
	}
	if p.At != nil && p.Fractional != nil {
		return check.Errorf(ErrPosition, "rope: both %s.At and %s.Fractional are given", name, name)
	}
	for i, v := range p.Fractional {
		if _, _, ok := split(v); !ok {
			return check.Errorf(ErrPosition, "rope: %s.Fractional[%d] is %v, want a number of magnitude below 2^63", name, i, v)
		}
	}
	return nil
}

// rotateScratch is the working memory of a call.
type rotateScratch struct {
	group  parallel.Group
	task   func(worker, i int)
	r      *Rotation
	call   Call
	rows   int // of a task
	tables []table
}

// taskElements is how many elements a task is about: a call with fewer runs on
// the caller's goroutine.
const taskElements = 1 << 16

func (s *rotateScratch) rotate(ctx context.Context, r *Rotation, c Call) error {
	if s.task == nil {
		s.task = s.run
	}
	s.r, s.call = r, c
	defer func() { s.call = Call{} }()
	s.rows = max(taskElements/c.X.Cols, 1)
	workers := parallel.Workers(r.cfg.Workers)
	for len(s.tables) < workers {
		s.tables = append(s.tables, newTable(r))
	}
	tasks := (c.X.Rows + s.rows - 1) / s.rows
	if err := s.group.Run(ctx, workers, tasks, s.task); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return check.Errorf(ErrShape, "rope: %v", err)
	}
	return nil
}

// run rotates the rows of a task.
func (s *rotateScratch) run(worker, i int) {
	r, c, t := s.r, &s.call, &s.tables[worker]
	width := c.X.Cols / r.heads
	for row := i * s.rows; row < min((i+1)*s.rows, c.X.Rows); row++ {
		for head := range r.heads {
			t.fill(r, c, row, head)
			x := c.X.Data[row*c.X.Stride+head*width:][:width]
			dst := c.Dst.Data[row*c.Dst.Stride+head*width:][:width]
			r.apply(dst, x, t)
		}
	}
}

// apply rotates the heads of a row that share a table.
func (r *Rotation) apply(dst, x []float32, t *table) {
	headDim, dim := r.cfg.HeadDim, r.cfg.RotaryDim
	if &dst[0] != &x[0] {
		for h := dim; h < len(x) && dim < headDim; h += headDim {
			copy(dst[h:][:headDim-dim], x[h:])
		}
	}
	if r.cfg.Layout == Half {
		asm.RotateHalf(dst, x, headDim, t.cos, t.sin)
	} else {
		asm.RotateInterleaved(dst, x, headDim, t.cos, t.sin)
	}
}

// table is the cosines and sines of one row, with what they are made of.
type table struct {
	phase    []uint64
	top      []uint32 // as the kernels want them: see expand
	cos, sin []float32
}

func newTable(r *Rotation) table {
	n := r.pairs
	if r.cfg.Layout == Interleaved {
		n *= 2
	}
	return table{make([]uint64, r.pairs), make([]uint32, n), scratch.Floats(nil, n), scratch.Floats(nil, n)}
}

// fill computes the table of a row.
func (t *table) fill(r *Rotation, c *Call, row, head int) {
	sign, factor := uint64(1), r.scale()
	if c.From != nil {
		factor /= c.From.scale()
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

// scale is the factor of cosines and sines.
func (r *Rotation) scale() float64 {
	if r.cfg.SeparateFactor {
		return 1
	}
	return r.factor
}

// CosSin writes the cosines and sines, times the attention factor, of every row
// of positions: [tokens, RotaryDim/2], or [tokens, heads * RotaryDim/2] for
// learned frequencies, in both layouts. It is for callers that rotate by
// themselves.
func (r *Rotation) CosSin(cos, sin blas32.General, p Positions) error {
	cols := r.heads * r.pairs
	if err := first(check.Matrix(ErrShape, "rope", "cos", cos, -1, cols, "heads*RotaryDim/2"),
		check.Matrix(ErrShape, "rope", "sin", sin, cos.Rows, cols, "heads*RotaryDim/2"),
		p.check("positions", cos.Rows, r.axes)); err != nil {
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
			kernel.CosSin(c[head*r.pairs:][:r.pairs], s[head*r.pairs:][:r.pairs], top, float32(r.scale()))
		}
	}
	return nil
}
