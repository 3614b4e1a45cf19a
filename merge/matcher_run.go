package merge

import (
	"context"
	"fmt"

	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// run is one call of a Matcher, and the memory that calls share.
type run struct {
	m     *Matcher
	call  Call
	group parallel.Group
	seqs  []sequence
	seen  []bool

	// Of tokens: one over the length of the metric's row, or 0 of one that takes no
	// part; and, when the plan is built, the token that it becomes part of.
	inverse []float32
	target  []int32
	// The lists of all sequences, one behind the other.
	src, dst   []int32 // tokens: sources, destinations
	from, cand []int32 // those of them that take part
	head, tail []int32 // other tokens, before and behind them in the published order
	all        []int32 // tokens that take part, of methods that go by energy
	// Of from: the index in cand of the nearest destination, or none, and its cosine.
	to    []int32
	score []float32

	columns []int32   // tokens whose rows are in packed
	packed  []float32 // normalised rows, in panels
	energy  []float64 // of tokens
	ranked  []uint64
	order   []int32
	offsets []int
	tasks   []task
	workers []worker
	do      func(worker, i int)
	step    func(r *run, w *worker, t task)
}

// sequence is one of the sequences of a call, its tokens and its share of the lists.
type sequence struct {
	from, to   int
	src, dst   span
	froms, can span
	head, tail span
	all        span
	columns    span // of run.columns
	packed     int  // where their panels begin
}

// span is a range of a list.
type span struct{ from, to int }

func (s span) len() int { return s.to - s.from }

func (s span) of(list []int32) []int32 { return list[s.from:s.to] }

// task is rows from up to to of something of a sequence.
type task struct{ seq, from, to int }

// worker is the memory of one goroutine.
type worker struct {
	rows        []float32 // normalised
	score       []float32 // of them with some panels
	best, place []float32 // of kernel.AttentionTile.Nearest
}

func (r *run) run(ctx context.Context, m *Matcher, call *Call) error {
	if err := r.check(m, call); err != nil {
		return err
	}
	r.m, r.call = m, *call
	defer func() { r.call = Call{} }()
	if r.do == nil {
		r.do = func(w, i int) { r.step(r, &r.workers[w], r.tasks[i]) }
	}
	if r.declines() {
		r.decline()
		return nil
	}
	r.inverse = scratch.Sized(r.inverse, call.Metric.Rows)
	if err := r.parallel(ctx, r.cut(rowBlock, func(s *sequence) int { return s.to - s.from }), (*run).lengths); err != nil {
		return err
	}
	if err := r.lists(ctx); err != nil {
		return err
	}
	if err := r.search(ctx); err != nil {
		return err
	}
	return r.decide()
}

// rowBlock is how many rows of the metric a task takes at once.
const rowBlock = 256

// cut makes tasks of up to size rows of each sequence.
func (r *run) cut(size int, rows func(*sequence) int) []task {
	r.tasks = r.tasks[:0]
	for i := range r.seqs {
		n := rows(&r.seqs[i])
		for from := 0; from < n; from += size {
			r.tasks = append(r.tasks, task{i, from, min(from+size, n)})
		}
	}
	return r.tasks
}

// parallel runs a step for all tasks.
func (r *run) parallel(ctx context.Context, tasks []task, step func(*run, *worker, task)) error {
	workers := min(r.call.workers(r.m.cfg.Workers), max(len(tasks), 1))
	if len(r.workers) < workers {
		r.workers = append(r.workers, make([]worker, workers-len(r.workers))...)
	}
	r.step = step
	if err := r.group.Run(ctx, workers, len(tasks), r.do); err != nil {
		return fmt.Errorf("merge: %w", err)
	}
	return nil
}

// lengths sets inverse: 1 / max(|row|, 1e-12).
func (r *run) lengths(_ *worker, t task) {
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
