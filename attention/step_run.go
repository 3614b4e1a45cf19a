package attention

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/pack"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/rope"
)

// stepRun is the working memory of a step, and the step itself.
//
// A state's keys are cut into splits, by their number alone, and a split's heads
// into ranges: those are the tasks. A task goes over its keys tile by tile: all
// heads' scores, in the order in which keys stand in memory, their softmax, then
// all heads' values. What it finds waits in o, top and sum, and a second set of
// tasks puts the splits together in their order, as Merge would.
//
// A row is a query of one head; the rows that read a key head stand together:
// row (g*queries + i)*(H/G) + h of a job is query i of the h-th head that reads g.
type stepRun struct {
	op      *Attention
	call    Call
	batch   pack.Layout[*State]
	owned   func(name string, s *State) error
	states  []*State // the batch's
	offsets []int    // [states + 1], the first row of Q of each state
	one     [2]blas32.General
	single  [1]*State
	list    []*State   // of Call.State or States
	look    bool       // there are no new tokens
	silent  bool       // there are no queries
	rows    int        // new tokens, of all states
	depth   []int      // [nodes], how deep each node of the tree is
	tiles   forwardRun // of states whose queries are many
	tiled   []bool     // [states], whether it has done the wave's
	firsts  [2]int64   // positions of its first query and first key
	probe   forwardRun // what is checked as in a call without states: extra keys, biases, masks

	group               parallel.Group
	split, finish, mass func(worker, task int)
	lse                 blas32.General // [queries, H]: the call's, or over lses
	lses                []float32

	done  []int // [states], rows of each that are finished
	taken []int // [states], rows of each that the present wave takes
	jobs  []job
	spans []span     // of all jobs
	ring  []span     // of a ring, before a Selection cuts them
	views []block    // of extra keys in matrices: the segments of all sources
	work  []stepWork // of each worker
	tasks int        // in all jobs

	q                  []float32               // scaled and packed queries of all jobs, [rows][qCols]
	head               []float32               // [rows that read one key head][kCols], on their way to q
	kRotated, qRotated []float32               // copies of the call's rows, turned to their positions
	turnedValues       bool                    // some values of int8 stand turned
	at                 []int64                 // [rows], positions of a tree's nodes
	integers           []kernel.IntegerQueries // of jobs whose products are of integers: [heads][plain, turned][parts]
	o                  []float32               // [splits x rows][oCols], sums of weighted values, then those of turned ones
	top, sum           []float32               // [splits x rows], largest logit and sum of exp(logit - top)
}

// job is what a round has to do for a state and one source of keys: the state
// itself, then, in jobs that follow it, the call's extra keys.
type job struct {
	st           *State
	seq          int            // number of the state in the batch
	source       int            // 0 for the state, n for Call.Extra[n-1]
	heads        int            // of the keys
	from, to     int            // queries, rows of Q
	first        int            // position of the first query
	base         int            // position of the step's first new token
	node         int            // number of the first query among the tree's nodes
	total        int            // tokens that the state has seen, the new ones included
	spans        [2]int         // from, to in stepRun.spans
	keys         int            // in the spans
	size, splits int            // keys in a split; number of splits
	ranges       int            // of key heads, which are tasks of their own
	task, finish int            // number of the first task that splits, and that finishes
	q            int            // where its rows begin in stepRun.q, in float32
	part         int            // where its splits begin in stepRun.o, in rows
	window       int            // tokens up to a query's own that it sees; 0 for all
	rot          *rope.Rotation // that keys are yet to be turned by, or nil
	wide         bool           // keys and values are read through float32 copies
	split        int            // columns of the first part of keys of int8, or 0
	turned       bool           // some of the keys stand turned
	short        bool           // some spans are so short that they are gathered
	integer      bool           // of int8, multiplied as integers
	integers     int            // where its queries begin in stepRun.integers
}

func (j *job) queries() int { return j.to - j.from }

// rowsOf is how many rows read a key head.
func (d *stepRun) rowsOf(j *job) int { return j.queries() * d.groupOf(j) }

// groupOf is how many query heads read a key head.
func (d *stepRun) groupOf(j *job) int { return d.op.cfg.Heads / j.heads }

// kCols and vCols are the widths of keys and values in scratch.
func (d *stepRun) kCols() int { return whole(d.op.cfg.HeadDim, d.op.stepTile.Unit()) }
func (d *stepRun) vCols() int { return whole(d.op.cfg.ValueDim, d.op.stepTile.Unit()) }

// qCols is the width of a job's packed queries, turned ones included.
func (d *stepRun) qCols(j *job) int {
	if j.turned {
		return 2 * d.kCols()
	}
	return d.kCols()
}

// oCols is the width of a row of o.
func (d *stepRun) oCols() int {
	if d.turnedValues {
		return 2 * d.vCols()
	}
	return d.vCols()
}

func whole(n, unit int) int { return (n + unit - 1) / unit * unit }

func (d *stepRun) step(ctx context.Context, a *Attention, call *Call, many bool, states []*State) error {
	d.op, d.call = a, *call
	defer d.dropStep()
	if err := d.checkStep(many, states); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if d.split == nil {
		d.split, d.finish, d.mass = d.splitTask, d.finishTask, d.splitMassTask
	}
	d.beginMass()
	d.done, d.taken = d.done[:0], d.taken[:0]
	for range d.states {
		d.done, d.taken = append(d.done, 0), append(d.taken, 0)
	}
	for more := true; more; {
		more = false
		if err := d.takeUp(ctx); err != nil {
			return err
		}
		for b := range d.states {
			d.done[b] += d.taken[b]
			more = more || d.offsets[b]+d.done[b] < d.offsets[b+1]
		}
	}
	return nil
}

// dropStep drops what belongs to the caller.
func (d *stepRun) dropStep() {
	d.tiles.dropCall()
	d.call, d.one, d.states, d.single = Call{}, [2]blas32.General{}, nil, [1]*State{}
	d.silent, d.lse = false, blas32.General{}
	d.batch.Clear()
	clear(d.list)
	clear(d.jobs)
	clear(d.spans)
	clear(d.ring)
	clear(d.views)
	d.probe.dropCall()
}

// takeUp appends tokens to each state, all that are left or as many as a ring takes
// at once, and attends from them. It takes them back where it fails.
func (d *stepRun) takeUp(ctx context.Context) error {
	begun, ended := 0, false // which stays so where a callback ends the goroutine
	defer func() {
		for b, s := range d.states[:begun] {
			switch {
			case !ended:
				s.turnBack()
			case !d.look:
				s.took(d.taken[b])
				s.reached = max(s.reached, s.n)
			}
			s.trim()
		}
	}()
	for b, s := range d.states {
		n := d.offsets[b+1] - d.offsets[b] - d.done[b]
		if s.cfg.Window > 0 && !d.look {
			n = min(n, slack)
		}
		d.taken[b] = n
		begun++
		if d.look {
			n = 0
		}
		if err := s.turnTo(ctx, s.n+n); err != nil {
			return err
		}
		if err := d.store(ctx, s, d.offsets[b]+d.done[b], n); err != nil {
			return err
		}
	}
	if d.silent {
		d.jobs = d.jobs[:0]
		d.clearMass()
		ended = true
		return nil
	}
	if err := d.prefill(ctx); err != nil {
		return err
	}
	most := max(1, d.op.sizes.StepRows/d.op.cfg.Heads) // queries
	for done, more := 0, true; more; done += most {    // once at least
		more = false
		d.jobs, d.spans, d.turnedValues = d.jobs[:0], d.spans[:0], false
		for b := range d.states {
			if n := d.taken[b] - done; n > 0 && !d.tiled[b] {
				more = more || n > most
				d.plan(b, done, min(n, most))
			}
		}
		if done == 0 {
			d.clearMass()
		}
		if err := d.attendJobs(ctx); err != nil {
			return check.Wrap(ctx, "attention", err)
		}
	}
	ended = true
	return nil
}

// attendJobs does the jobs.
func (d *stepRun) attendJobs(ctx context.Context) error {
	a := d.op
	parts, splits, packed, integers, work := 0, 0, 0, 0, int64(0)
	for i := range d.jobs {
		j := &d.jobs[i]
		n := j.queries() * a.cfg.Heads
		j.q, j.integers, j.part = packed, integers, parts
		if j.integer {
			integers += j.heads * j.integerQueries()
		} else {
			packed += n * d.qCols(j)
		}
		parts += n * j.splits
		splits += j.splits
		work += int64(min(float64(n)*float64(j.keys)*float64(a.cfg.HeadDim+a.cfg.ValueDim), math.MaxInt32))
	}
	workers := a.workers(d.call.Workers, work)
	d.q = scratch.Floats(d.q, packed)
	d.reserveIntegers(integers)
	d.o, d.top, d.sum = scratch.Floats(d.o, parts*d.oCols()), scratch.Floats(d.top, parts), scratch.Floats(d.sum, parts)
	d.tasks = 0
	ends := 0
	for i := range d.jobs {
		j := &d.jobs[i]
		if err := d.pack(j); err != nil {
			return err
		}
		j.ranges = 1
		if workers > 1 {
			j.ranges = min(j.heads, (4*workers+splits-1)/splits)
		}
		j.task, j.finish = d.tasks, ends
		d.tasks += j.splits * j.ranges
		if j.source == 0 {
			ends += j.heads
		}
	}
	for len(d.work) < workers {
		d.work = append(d.work, stepWork{})
	}
	for i := range workers {
		d.work[i].reserveStep(d)
	}
	if err := d.group.Run(ctx, workers, d.tasks, d.split); err != nil {
		return err
	}
	if err := d.group.Run(ctx, workers, ends, d.finish); err != nil || !d.diagnosingStep() {
		return err
	}
	if err := d.group.Run(ctx, workers, d.tasks, d.mass); err != nil {
		return err
	}
	d.entropies()
	return nil
}

// pack scales, rotates and packs the queries of a job.
func (d *stepRun) pack(j *job) error {
	a := d.op
	cfg, cols := &a.cfg, d.kCols()
	q := mat.Rows(d.call.Q, j.from, j.from+j.queries())
	if j.st.schedule != nil {
		var err error
		pos := j.first
		if d.call.Tree != nil {
			pos = j.base + j.node
		}
		if q, err = d.rotated(&d.qRotated, j.st.rotation, q, pos, j.base); err != nil {
			return check.Errorf(ErrCall, "attention: %v", err)
		}
	}
	group, rows := d.groupOf(j), d.rowsOf(j)
	d.head = scratch.Floats(d.head, rows*cols)
	clear(d.head)
	for g := range j.heads {
		for i := range q.Rows {
			for h := range group {
				x := mat.Part(q, i, (g*group+h)*cfg.HeadDim, cfg.HeadDim)
				asm.Scale(d.head[(i*group+h)*cols:][:cfg.HeadDim], cfg.Scale, x)
			}
		}
		m := blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: d.head}
		if j.integer {
			d.packIntegers(j, g, m)
			continue
		}
		to := d.q[j.q+g*rows*d.qCols(j):][:rows*d.qCols(j)]
		a.stepTile.PackQueries(to[:rows*j.split], mat.Columns(m, 0, j.split))
		a.stepTile.PackQueries(to[rows*j.split:][:rows*(cols-j.split)], mat.Columns(m, j.split, cols-j.split))
		if j.turned {
			j.turnQueries(m)
			to = to[rows*cols:]
			a.stepTile.PackQueries(to[:rows*j.split], mat.Columns(m, 0, j.split))
			a.stepTile.PackQueries(to[rows*j.split:], mat.Columns(m, j.split, cols-j.split))
		}
	}
	return nil
}

// turnQueries turns queries as keys are that stand turned, part by part.
func (j *job) turnQueries(q blas32.General) {
	for i := range q.Rows {
		x := mat.Row(q, i)
		turn(x[:j.split])
		turn(x[j.split:])
	}
}

// queryPosition is that of a job's query.
func (d *stepRun) queryPosition(j *job, query int) int {
	if d.call.Tree != nil {
		return j.base + d.depth[j.node+query]
	}
	return j.first + query
}
