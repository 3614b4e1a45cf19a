package hyena

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// convRun is the working memory of a call of Conv.
type convRun struct {
	group   parallel.Group
	ctx     context.Context
	conv    *Conv
	dst, u  blas32.General // [tokens, channels], of the call
	k       kernels        // in time
	direct  blas32.General // [taps, channels], where the sum is computed as it stands
	plans   [2]*plan       // of channels side by side, of phases
	units   []unit
	workers []convWorker

	// The tasks, as values that are made once.
	convolve, activate, prepare func(worker, i int)
}

// convWorker is what each worker has for itself, n being the size of the plan.
type convWorker struct {
	kernel   []float32 // [n, Lanes], a kernel in the plan's order
	work     []float32 // [n, 2 Lanes], a transform
	spare    []float32 // [n, 2 Lanes], the transform of the other kernel
	spectrum []float32 // of a unit whose spectrum is not kept
	rows     []float32 // [tokens, Lanes], an input and output of the unit's own
}

// begin finds out how a call of this many tokens is done, and gets the kernels. end
// forgets what belongs to the call.
func (r *convRun) begin(ctx context.Context, c *Conv, tokens, workers int) (err error) {
	if r.convolve == nil {
		r.convolve, r.activate, r.prepare = r.convolveUnit, r.activateRows, r.prepareUnit
	}
	r.ctx, r.conv = ctx, c
	r.units = c.units(r.units[:0], tokens)
	reach := directTaps // how many taps the plans take
	for i := range r.plans {
		if n := c.planSize(tokens, i > 0); !c.isDirect(tokens) {
			if p := r.plans[i]; p == nil || p.n != n || p.Butterflies != c.b {
				r.plans[i] = planFor(c.b, n)
			}
			reach = max(reach, n, i*n*c.b.Lanes())
		}
	}
	for len(r.workers) < workers {
		r.workers = append(r.workers, convWorker{})
	}
	if r.k, err = c.source(ctx, &r.group, workers, reach); err == nil && c.isDirect(tokens) {
		r.direct = c.direct.backwards(r.k)
	}
	return err
}

func (r *convRun) end() {
	r.ctx, r.conv, r.dst, r.u, r.k, r.direct = nil, nil, blas32.General{}, blas32.General{}, kernels{}, blas32.General{}
}

// convolveAll runs a call that has been checked.
func (r *convRun) convolveAll(ctx context.Context, c *Conv, dst, u blas32.General, workers int) error {
	defer r.end()
	if err := r.begin(ctx, c, u.Rows, workers); err != nil {
		return err
	}
	r.dst, r.u = dst, u
	err := r.group.Run(ctx, workers, len(r.units), r.convolve)
	if err == nil && c.cfg.GELU {
		rows := r.activateCount()
		err = r.group.Run(ctx, workers, (u.Rows+rows-1)/rows, r.activate)
	}
	return err
}

// prepareAll makes the spectra of a call of this many tokens.
func (r *convRun) prepareAll(ctx context.Context, c *Conv, tokens, workers int) error {
	defer r.end()
	if err := r.begin(ctx, c, tokens, workers); err != nil || c.isDirect(tokens) {
		return err
	}
	return r.group.Run(ctx, workers, len(r.units), r.prepare)
}

// prepareUnit makes the spectrum of unit i where it is going to be kept.
func (r *convRun) prepareUnit(worker, i int) {
	u := r.units[i]
	p := r.planOf(u)
	if e := r.conv.cache.claim(spectrumKey{p.n, u.channel}, p, p.spectrumLen(u.phases)); e != nil {
		r.fill(e, p, u, &r.workers[worker])
	}
}

func (r *convRun) planOf(u unit) *plan {
	if u.phases {
		return r.plans[1]
	}
	return r.plans[0]
}

// activateCount is how many tokens a task of the activation has.
func (r *convRun) activateCount() int { return max(1, min(64, 1<<20/r.conv.channels)) }

// activateRows applies the GELU to the tokens of task i.
func (r *convRun) activateRows(_, i int) {
	rows := r.activateCount()
	for t := i * rows; t < min((i+1)*rows, r.dst.Rows); t++ {
		row := mat.Row(r.dst, t)
		asm.GELU(row, row)
	}
}

// convolveUnit convolves the channels of unit i.
func (r *convRun) convolveUnit(worker, i int) {
	w, u := &r.workers[worker], r.units[i]
	dst, in := mat.Columns(r.dst, u.channel, u.channels), mat.Columns(r.u, u.channel, u.channels)
	if r.conv.isDirect(in.Rows) {
		r.sumTaps(dst, in, mat.Columns(r.direct, u.channel, u.channels), w)
		return
	}
	p := r.planOf(u)
	spectrum := r.spectrumOf(p, u, w)
	if spectrum == nil {
		return // stopped
	}
	w.work = scratch.Floats(w.work, p.n*p.row())
	lanes := p.Lanes()
	if u.channels == lanes && in.Rows >= fewRows {
		p.multiply(&r.group, dst.Data, dst.Stride, in.Data, in.Stride, in.Rows, spectrum, w.work, false)
		return
	}
	// Rows of our own, filled up with zeros.
	rows := in.Rows
	if u.phases {
		rows = (rows + lanes - 1) / lanes
	}
	rows = max(rows, fewRows)
	w.rows = scratch.Floats(w.rows, rows*lanes)
	clear(w.rows)
	own := blas32.General{Rows: in.Rows, Cols: u.channels, Stride: lanes, Data: w.rows}
	if u.phases {
		own.Stride = 1
	}
	mat.Copy(own, in)
	p.multiply(&r.group, w.rows, lanes, w.rows, lanes, rows, spectrum, w.work, u.phases)
	mat.Copy(dst, own)
}

// directRows is how many tokens of a unit are summed at once.
const directRows = 2048

// sumTaps sets dst to the sum of few taps as it stands, from the last tokens to the
// first, so that dst may be in.
func (r *convRun) sumTaps(dst, in, taps blas32.General, w *convWorker) {
	if in.Rows < taps.Rows { // the oldest are never reached
		taps = mat.Rows(taps, taps.Rows-in.Rows, taps.Rows)
	}
	inPlace := mat.Overlap(dst, in)
	for from := (in.Rows - 1) / directRows * directRows; from >= 0; from -= directRows {
		if r.group.Stopped() {
			return
		}
		before := min(from, taps.Rows-1) // tokens that the first one sees
		x := mat.Rows(in, from-before, min(from+directRows, in.Rows))
		if inPlace {
			w.rows = scratch.Floats(w.rows, x.Rows*x.Cols)
			own := mat.Of(w.rows, x.Rows, x.Cols)
			mat.Copy(own, x)
			x = own
		}
		var history blas32.General
		if before > 0 {
			history = mat.Rows(x, 0, before)
		}
		n := x.Rows - before
		asm.DepthwiseConv(mat.Rows(dst, from, from+n), mat.Rows(x, before, x.Rows), taps, nil, history)
	}
}

// spectrumOf returns the transformed kernels of a unit, from the cache or made now;
// nil if the call is stopped.
func (r *convRun) spectrumOf(p *plan, u unit, w *convWorker) []float32 {
	size := p.spectrumLen(u.phases)
	if e := r.conv.cache.claim(spectrumKey{p.n, u.channel}, p, size); e != nil {
		if !r.fill(e, p, u, w) {
			return nil
		}
		return e.data
	}
	w.spectrum = scratch.Floats(w.spectrum, size)
	p.transformKernels(&r.group, w.spectrum, r.k, u, w)
	if r.group.Stopped() {
		return nil
	}
	return w.spectrum
}

// fill makes the spectrum of an entry unless it is there, and tells whether it is.
func (r *convRun) fill(e *spectrumEntry, p *plan, u unit, w *convWorker) bool {
	if e.ready.Load() {
		return true
	}
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-r.ctx.Done(): // another call makes it
		r.group.Stopped()
		return false
	}
	if e.ready.Load() {
		return true
	}
	p.transformKernels(&r.group, e.data, r.k, u, w)
	e.ready.Store(!r.group.Stopped())
	return e.ready.Load()
}
