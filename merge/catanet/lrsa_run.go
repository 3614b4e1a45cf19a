package catanet

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// lrsaRun is one call of an LRSA, and the memory that calls share. n are the pixels of
// all images, and p those of all windows, in which a pixel stands once for each window
// that it is in.
type lrsaRun struct {
	op      *LRSA
	call    ImageCall
	workers parallel.Group
	memory  []float32   // of the matrices below
	work    [][]float32 // scratch of each worker

	down, across []int // the first line and the first column of windows, in an image
	high, wide   int   // sides of a window, in pixels: Window, or the image's where that is less
	offsets      []int // [windows+1] the first pixel of each window, and at last p

	q, k     blas32.General // [p, QKDim]
	v        blas32.General // [p, Dim]
	mixed    blas32.General // [p, Dim], attention
	y        blas32.General // [n, Dim], the windows put together
	hidden   blas32.General // [n, Inner], of the feed-forward layer
	segments [2]blas32.General
	attend   attention.Call

	project, join, ffn func(worker, i int) // projectWindow, joinLine and endLine
}

// windowsAlong is how many windows there are along n pixels.
func windowsAlong(n, side, step int) int { return (n-side+step-1)/step + 1 }

// starts lists where windows of a side begin along n pixels: at every step, and the last
// one so that it ends with them.
func starts(list []int, n, side, step int) []int {
	list = list[:0]
	for i := range windowsAlong(n, side, step) {
		list = append(list, min(i*step, n-side))
	}
	return list
}

// sweep runs a call.
func (r *lrsaRun) sweep(ctx context.Context, op *LRSA, call *ImageCall) error {
	r.op, r.call = op, *call
	defer func() { r.call, r.attend, r.segments = ImageCall{}, attention.Call{}, [2]blas32.General{} }()
	if r.project == nil {
		r.project, r.join, r.ffn = r.projectWindow, r.joinLine, r.endLine
	}
	windows, err := r.layWindows()
	if err != nil {
		return err
	}
	workers := parallel.Choose(op.cfg.Workers, call.Workers)
	r.work = scratch.Sized(r.work, max(len(r.work), workers))
	if err := r.workers.RunAs(ctx, "catanet", workers, windows, r.project); err != nil || windows == 0 {
		return err
	}
	r.segments = [2]blas32.General{r.k, r.v}
	r.attend = attention.Call{Dst: r.mixed, Q: r.q, K: r.segments[:1], V: r.segments[1:], Offsets: r.offsets, Workers: call.Workers}
	if err := within(ctx, op.attention, &r.attend); err != nil {
		return err
	}
	lines := call.X.Rows / call.Width
	if err := r.workers.RunAs(ctx, "catanet", workers, lines, r.join); err != nil {
		return err
	}
	return r.workers.RunAs(ctx, "catanet", workers, lines, r.ffn)
}

// layWindows lays the windows out, cuts the memory of a call and returns how many windows
// there are.
func (r *lrsaRun) layWindows() (windows int, err error) {
	cfg, c := &r.op.cfg, &r.call
	rows, images := c.X.Rows, c.X.Rows/(c.Height*c.Width)
	r.high, r.wide = min(cfg.Window, c.Height), min(cfg.Window, c.Width)
	size := r.high * r.wide
	down, across := windowsAlong(c.Height, r.high, cfg.Step), windowsAlong(c.Width, r.wide, cfg.Step)
	pixels := check.Product(maxTokens, images, down, across, size)
	floats := check.Product(math.MaxInt/8, int(pixels), 2*cfg.Dim+2*cfg.QKDim)
	if pixels < 0 || floats < 0 {
		return 0, check.Errorf(ErrShape, "catanet: %d images of %d x %d have too many windows of %d at a step of %d", images, c.Height, c.Width, cfg.Window, cfg.Step)
	}
	r.down, r.across = starts(r.down, c.Height, r.high, cfg.Step), starts(r.across, c.Width, r.wide, cfg.Step)
	windows = images * down * across
	n := int(pixels)
	r.memory = scratch.Floats(r.memory, int(floats)+rows*(cfg.Dim+cfg.Inner))
	cut := cutter{r.memory}
	r.q, r.k, r.v, r.mixed = cut.take(n, cfg.QKDim), cut.take(n, cfg.QKDim), cut.take(n, cfg.Dim), cut.take(n, cfg.Dim)
	r.y, r.hidden = cut.take(rows, cfg.Dim), cut.take(rows, cfg.Inner)
	r.offsets = r.offsets[:0]
	for i := range windows + 1 {
		r.offsets = append(r.offsets, i*size)
	}
	return windows, nil
}

// pixel returns the row of x of a pixel of a window.
func (r *lrsaRun) pixel(window, y, x int) int {
	per := len(r.down) * len(r.across)
	image, at := window/per, window%per
	return (image*r.call.Height+r.down[at/len(r.across)]+y)*r.call.Width + r.across[at%len(r.across)] + x
}

// projectWindow makes the queries, keys and values of a window.
func (r *lrsaRun) projectWindow(worker, i int) {
	op, size, w := r.op, r.high*r.wide, &r.work[worker]
	*w = scratch.Floats(*w, size*op.cfg.Dim)
	n := mat.Of(*w, size, op.cfg.Dim)
	for y := range r.high {
		from := r.pixel(i, y, 0)
		op.projections.norm.Forward(mat.Rows(n, y*r.wide, (y+1)*r.wide), mat.Rows(r.call.X, from, from+r.wide))
	}
	part := func(m blas32.General) blas32.General { return mat.Rows(m, i*size, (i+1)*size) }
	op.projections.project(part(r.q), part(r.k), part(r.v), n)
}

// joinLine puts the windows over a line together, each x + proj(attention), and begins
// the feed-forward layer.
func (r *lrsaRun) joinLine(worker, i int) {
	op, width, w := r.op, r.call.Width, &r.work[worker]
	image, y := i/r.call.Height, i%r.call.Height
	x, sum := mat.Rows(r.call.X, i*width, (i+1)*width), mat.Rows(r.y, i*width, (i+1)*width)
	mat.Clear(sum)
	*w = scratch.Floats(*w, r.wide*op.cfg.Dim)
	projected := mat.Of(*w, r.wide, op.cfg.Dim)
	for d, top := range r.down {
		if y < top || y >= top+r.high {
			continue
		}
		for a, left := range r.across {
			window := (image*len(r.down)+d)*len(r.across) + a
			from := (window*r.high + y - top) * r.wide
			op.projections.proj.Forward(projected, mat.Rows(r.mixed, from, from+r.wide))
			for t := range r.wide {
				s := mat.Row(sum, left+t)
				asm.Add(s, s, mat.Row(projected, t))
				asm.Add(s, s, mat.Row(x, left+t))
			}
		}
	}
	scale := halves(r.down, r.high, y)
	for t := range sum.Rows {
		s := mat.Row(sum, t)
		asm.Scale(s, scale*halves(r.across, r.wide, t), s)
	}
	op.ffn.expand(mat.Rows(r.hidden, i*width, (i+1)*width), sum, w)
}

// halves is 1/2 for every pair of consecutive windows that overlap at a place.
func halves(starts []int, side, at int) float32 {
	scale := float32(1)
	for i := 1; i < len(starts); i++ {
		if at >= starts[i] && at < starts[i-1]+side {
			scale /= 2
		}
	}
	return scale
}

// endLine ends the feed-forward layer for a line of an image.
func (r *lrsaRun) endLine(worker, i int) {
	r.op.ffn.contractLine(&r.call, r.y, r.hidden, i, &r.work[worker])
}
