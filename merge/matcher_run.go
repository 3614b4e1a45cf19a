package merge

import (
	"context"

	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// matchRun is one call of a Matcher, and the memory that calls share. n are the tokens of
// all sequences. A list has the parts of all sequences, one after the other, of which a
// sequence knows its span.
type matchRun struct {
	m     *Matcher
	ctx   context.Context
	call  Call
	group parallel.Group
	seqs  []sequence
	seen  []bool // [n] tokens that are in Sources or Destinations

	inverse []float32 // [n] one over the length of the metric's row, 0 of a token that takes no part
	target  []int32   // [n] the token that a token becomes part of, itself if it is left

	src, dst   []int32   // lists of tokens: sources, destinations
	from, cand []int32   // those of src and dst that take part
	head, tail []int32   // other tokens, before and after them in the published order
	all        []int32   // tokens that take part, of methods that go by energy
	to         []int32   // [from] the index in cand of the nearest destination, or none
	score      []float32 // [from] its cosine

	columns []int32   // a list: tokens whose rows are in packed
	packed  []float32 // normalised rows of the metric, in the tile's panels
	energy  []float64 // [n]
	ranked  []uint64  // of a sequence: descending(score) << 32 | index in from
	order   []int32   // tokens that are left, as they shall stand
	offsets []int     // where each sequence begins in order, and at last its length

	tasks []task
	work  []worker // of each goroutine
	do    func(worker, i int)
	step  func(r *matchRun, w *worker, t task) // of the tasks that run
}

// sequence is one of the sequences of a call: its tokens from (included) to to
// (excluded), and its spans of the lists.
type sequence struct {
	from, to   int
	src, dst   span // its sources and destinations
	froms, can span // of matchRun.from and cand
	head, tail span
	all        span
	columns    span
	packed     int // where its panels begin
}

// span is a range of a list, from (included) to to (excluded).
type span struct{ from, to int }

func (s span) len() int { return s.to - s.from }

func (s span) of(list []int32) []int32 { return list[s.from:s.to] }

// task is rows from (included) to to (excluded) of something of a sequence.
type task struct{ seq, from, to int }

// worker is the memory of one goroutine, for some rows of the metric and some panels.
type worker struct {
	rows        []float32 // [rows, dims] normalised
	score       []float32 // [rows, columns of the panels]
	best, place []float32 // [rows, panel] of kernel.AttentionTile.Nearest
}

// match runs a call.
func (r *matchRun) match(ctx context.Context, m *Matcher, call *Call) error {
	if err := r.checkCall(ctx, m, call); err != nil {
		return err
	}
	r.m, r.ctx, r.call = m, ctx, *call
	defer func() { r.ctx, r.call = nil, Call{} }()
	if r.do == nil {
		r.do = func(w, i int) { r.step(r, &r.work[w], r.tasks[i]) }
	}
	if r.declines() {
		r.decline()
		return nil
	}
	r.inverse = scratch.Sized(r.inverse, call.Metric.Rows)
	if err := r.perTask(ctx, r.cut(rowBlock, func(s *sequence) int { return s.to - s.from }), (*matchRun).lengths); err != nil {
		return err
	}
	if err := r.lists(ctx); err != nil {
		return err
	}
	if err := r.search(ctx); err != nil {
		return err
	}
	return r.decide(ctx)
}

// rowBlock is how many rows of the metric a task takes at once.
const rowBlock = 256

// cut makes tasks of up to size rows of each sequence.
func (r *matchRun) cut(size int, rows func(*sequence) int) []task {
	r.tasks = r.tasks[:0]
	for i := range r.seqs {
		n := rows(&r.seqs[i])
		for from := 0; from < n; from += size {
			r.tasks = append(r.tasks, task{i, from, min(from+size, n)})
		}
	}
	return r.tasks
}

// perTask runs a step for all tasks.
func (r *matchRun) perTask(ctx context.Context, tasks []task, step func(*matchRun, *worker, task)) error {
	workers := min(parallel.Choose(r.m.cfg.Workers, r.call.Workers), max(len(tasks), 1))
	if len(r.work) < workers {
		r.work = append(r.work, make([]worker, workers-len(r.work))...)
	}
	r.step = step
	if err := r.group.RunAs(ctx, "merge", workers, len(tasks), r.do); err != nil {
		return err
	}
	return ctx.Err() // a long task ends early, see stopped
}

// stopped tells whether a long task should end early because the context is done.
func (r *matchRun) stopped() bool { return r.ctx.Err() != nil }

// lengths sets inverse: 1 / max(|row|, 1e-12).
func (r *matchRun) lengths(_ *worker, t task) {
	c := &r.call
	base := r.seqs[t.seq].from
	for i := base + t.from; i < base+t.to; i++ {
		r.inverse[i] = 0
		protected := c.Protect != nil && c.Protect[i] || c.Valid != nil && !c.Valid[i]
		first := i - base
		protected = protected || first == 0 && r.m.cfg.ClassToken || first == 1 && r.m.cfg.DistillToken
		if !protected {
			r.inverse[i] = dense.InverseLength(mat.Row(c.Metric, i))
		}
	}
}
