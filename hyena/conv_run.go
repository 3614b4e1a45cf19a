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
	dst, u  blas32.General   // [tokens, channels], of the call
	k       kernels          // in time, where a spectrum has to be made
	filter  computed         // of k, where a source computes it
	direct  blas32.General   // [taps, channels], where the sum is computed as it stands
	cuts    [2]cut           // of channels side by side, of phases
	plans   [2]*plan         // likewise
	all     []unit           // the channels' units
	units   []unit           // those that are convolved at present
	held    []*spectrumEntry // of units, nil where a spectrum is not kept so far
	parts   [2]int           // tasks that a unit's windows are shared among
	edges   []float32        // inputs about the parts' borders, where dst is u
	workers []convWorker
	past    pasts
	rows    []float32 // of a step
	tile    []float32 // what is added to a stream's sums

	// The tasks, as values that are made once.
	convolve, activate, prepare func(worker, i int)
}

// convWorker is what each worker has for itself, n being the size of the plan.
type convWorker struct {
	rows     []float32 // [n, Lanes], input and output of the unit's own
	work     []float32 // [n, 2 Lanes], a transform, or a kernel in the plan's order
	spare    []float32 // [n, 2 Lanes], the transform of the other kernel
	spectrum []float32 // of a unit whose spectrum is not kept
	ahead    []float32 // [after, channels], inputs that outputs have been written over
}

// begin finds out how units first to end of all are done in a call of this many tokens, and gets
// the kernels where they are needed: as there may be memory for those of some units only, it
// returns the first that is not among them. end forgets what belongs to the call.
func (r *convRun) begin(ctx context.Context, c *Conv, tokens, workers, first, end int) (next int, err error) {
	if r.convolve == nil {
		r.convolve, r.activate, r.prepare = r.convolveTask, r.activateRows, r.prepareUnit
	}
	r.ctx, r.conv = ctx, c
	r.units = r.all[first:end]
	for len(r.workers) < workers {
		r.workers = append(r.workers, convWorker{})
	}
	if c.isDirect(tokens) {
		if !c.direct.ready() {
			r.k, err = c.source.rows(ctx, &r.group, workers, want{directTaps, directTaps, 0, c.channels}, &r.filter)
		}
		if err == nil {
			r.direct = c.direct.backwards(r.k)
		}
		return end, err
	}
	r.parts = [2]int{}
	for _, u := range r.units { // a kind that has no unit has no plan and no parts
		kind := kindOf(u)
		if r.parts[kind] > 0 {
			continue
		}
		k := c.cutOf(tokens, u.phases)
		if p := r.plans[kind]; p == nil || p.n != k.n || p.Butterflies != c.b {
			r.plans[kind] = planFor(c.b, k.n)
		}
		r.cuts[kind], r.parts[kind] = k, c.parts(k, len(r.units), workers)
	}
	for kind, parts := range r.parts {
		if parts == 0 {
			r.plans[kind] = nil
		}
	}
	r.held = r.held[:0]
	missing := len(r.units)
	for i, u := range r.units {
		e := c.cache.find(spectrumKey{c, r.planOf(u).n, u.channel})
		if e == nil {
			missing = min(missing, i)
		}
		r.held = append(r.held, e)
	}
	if missing == len(r.units) {
		return end, nil
	}
	w := want{rows: c.reach(r.units, tokens), size: r.planOf(r.units[0]).n, from: r.units[missing].channel}
	last := r.units[len(r.units)-1]
	w.to = min(w.from+c.atOnce(workers), last.channel+last.channels)
	if r.k, err = c.source.rows(ctx, &r.group, workers, w, &r.filter); err != nil {
		return first, err
	}
	n := len(r.units)
	for r.units[n-1].channel+r.units[n-1].channels > r.k.first+r.k.causal.Cols {
		n--
	}
	r.units = r.units[:n]
	return first + n, nil
}

func (r *convRun) end() {
	clear(r.held[:cap(r.held)])
	r.ctx, r.conv, r.dst, r.u, r.k, r.direct = nil, nil, blas32.General{}, blas32.General{}, kernels{}, blas32.General{}
}

// parts returns how many tasks the windows of a unit are shared among. No bit depends on it.
func (c *Conv) parts(k cut, units, workers int) int {
	if workers == 1 || units >= 4*workers {
		return 1
	}
	return min(k.count, (2*workers+units-1)/units)
}

// convolveAll runs a call that has been checked.
func (r *convRun) convolveAll(ctx context.Context, c *Conv, dst, u blas32.General, workers int) error {
	r.all = c.units(r.all[:0], u.Rows)
	return r.convolveRange(ctx, c, dst, u, workers, 0, len(r.all))
}

// convolveRange convolves units first to end of all.
func (r *convRun) convolveRange(ctx context.Context, c *Conv, dst, u blas32.General, workers, first, end int) error {
	defer r.end()
	for first < end {
		next, err := r.begin(ctx, c, u.Rows, workers, first, end)
		if err != nil {
			return err
		}
		if err := r.convolveUnits(ctx, c, dst, u, workers); err != nil {
			return err
		}
		first = next
	}
	if !c.cfg.GELU {
		return nil
	}
	rows := r.activateCount()
	return r.group.Run(ctx, workers, (u.Rows+rows-1)/rows, r.activate)
}

// convolveUnits convolves the units that have been begun.
func (r *convRun) convolveUnits(ctx context.Context, c *Conv, dst, u blas32.General, workers int) error {
	r.dst, r.u = dst, u
	tasks := len(r.units)
	if !c.isDirect(u.Rows) {
		tasks *= max(r.parts[0], r.parts[1])
		if r.edges = r.edges[:0]; mat.Overlap(dst, u) {
			r.saveEdges()
		}
	}
	return r.group.Run(ctx, workers, tasks, r.convolve)
}

// prepareAll makes the spectra of a call of this many tokens.
func (r *convRun) prepareAll(ctx context.Context, c *Conv, tokens, workers int) error {
	defer r.end()
	r.all = c.units(r.all[:0], tokens)
	if !c.keeps(r.all, tokens) {
		return ctx.Err()
	}
	for first := 0; first < len(r.all); {
		next, err := r.begin(ctx, c, tokens, workers, first, len(r.all))
		if err != nil || c.isDirect(tokens) {
			return err
		}
		if err := r.group.Run(ctx, workers, len(r.units), r.prepare); err != nil {
			return err
		}
		first = next
	}
	return nil
}

// keeps tells whether the cache could have room for anything of a call of this many tokens.
func (c *Conv) keeps(units []unit, tokens int) bool {
	if c.isDirect(tokens) {
		return true
	}
	least := c.source.spareBytes(c.reach(units, tokens), c.channels, 0)
	for _, u := range units {
		p := plan{Butterflies: c.b, n: c.cutOf(tokens, u.phases).n}
		least = min(least, floatBytes(p.spectrumLen(u.phases)))
	}
	return least <= c.cache.most
}

// prepareUnit makes the spectrum of unit i where it is going to be kept.
func (r *convRun) prepareUnit(worker, i int) {
	u := r.units[i]
	p := r.planOf(u)
	if r.held[i] != nil {
		return
	}
	if e := r.conv.cache.claim(spectrumKey{r.conv, p.n, u.channel}, p, p.spectrumLen(u.phases)); e != nil {
		r.fill(e, p, u, &r.workers[worker])
	}
}

func (r *convRun) planOf(u unit) *plan { return r.plans[kindOf(u)] }

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

// convolveTask convolves the channels of a unit, or a part of their tokens.
func (r *convRun) convolveTask(worker, i int) {
	w := &r.workers[worker]
	direct := r.conv.isDirect(r.u.Rows)
	parts := 1
	if !direct {
		parts = max(r.parts[0], r.parts[1])
	}
	u, part := r.units[i/parts], i%parts
	dst, in := mat.Columns(r.dst, u.channel, u.channels), mat.Columns(r.u, u.channel, u.channels)
	if direct {
		r.sumTaps(dst, in, mat.Columns(r.direct, u.channel, u.channels), w)
		return
	}
	kind := kindOf(u)
	if part >= r.parts[kind] {
		return
	}
	p := r.plans[kind]
	spectrum := r.spectrumOf(p, i/parts, w)
	if spectrum == nil {
		return // stopped
	}
	w.work = scratch.Floats(w.work, p.n*p.row())
	if r.cuts[kind].count > 1 {
		r.convolveWindows(dst, in, i/parts, part, spectrum, w)
		return
	}
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
	own := ownRows(w.rows, u, in.Rows, lanes)
	mat.Copy(own, in)
	p.multiply(&r.group, w.rows, lanes, w.rows, lanes, rows, spectrum, w.work, u.phases)
	mat.Copy(dst, own)
}

// ownRows is memory as rows of a unit.
func ownRows(data []float32, u unit, rows, lanes int) blas32.General {
	if u.phases {
		lanes = 1
	}
	return blas32.General{Rows: rows, Cols: u.channels, Stride: lanes, Data: data}
}

// kindOf returns the number of a unit's plan and cut.
func kindOf(u unit) int {
	if u.phases {
		return 1
	}
	return 0
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

// spectrumOf returns the transformed kernels of unit i, from the cache or made now;
// nil if the call is stopped.
func (r *convRun) spectrumOf(p *plan, i int, w *convWorker) []float32 {
	if e := r.held[i]; e != nil { // it may no longer be in the cache
		return e.data
	}
	u := r.units[i]
	size := p.spectrumLen(u.phases)
	if e := r.conv.cache.claim(spectrumKey{r.conv, p.n, u.channel}, p, size); e != nil {
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
