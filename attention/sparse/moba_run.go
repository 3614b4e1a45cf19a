package sparse

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/pack"
	"github.com/subquad/subquad/internal/scratch"
)

// mobaRun is the working memory of one call of MoBA, and the sequence of it that is being
// done. The queries of the wave's heads choose their blocks first. Then tiles of queries of a
// head go through the blocks of each round in their order: those that chose a block are
// gathered, attend to it together, and are put back.
type mobaRun struct {
	op     *MoBA
	call   mobaRequest
	layout pack.Layout[*MoBAState]
	list   []*MoBAState // the states of attention.Call.States
	own    func(name string, s *MoBAState) error

	wave
	gates       gates
	means       []float32      // of blocks of a sequence without a state
	q, dst, lse blas32.General // of the sequence
	at          int            // position of its first query
	rows        int            // of a tile of queries
	lists       []int32        // [query heads of the wave][queries][top]

	mean, pack, choose, attend func(worker, task int)
	work                       []mobaWorker
	few                        mobaFew
}

// mobaWorker is what one worker needs for a tile of query rows.
type mobaWorker struct {
	gate   gateWork
	rows   rows
	some   rows    // those that chose a block
	picked []int32 // which rows chose a block of the round, block after block
	ends   []int32 // [blocks]: where a block's end
	few    []int32 // blocks that a head of a single token chose
	strip  stripWork
	tiles  [2][1]packed
}

// attendTo attends from queries, the last of the keys' positions, to so many keys, which r.k and
// r.v or r.states have, by the means of their whole blocks.
func (r *mobaRun) attendTo(ctx context.Context, c mobaRequest, keys int, means blas32.General) error {
	m := r.op
	cfg := &m.cfg
	r.q, r.dst, r.lse, r.at = c.q, c.dst, c.lse, keys-c.q.Rows
	if err := r.gates.pack(ctx, &m.engine, cfg.KVHeads, cfg.TopK-1, means); err != nil {
		return err
	}
	choosing := (keys-1)/cfg.Block > r.gates.top // at least the last query
	r.rows = m.tileRows(r.q.Rows, keys)
	workers := r.reserve(keys)
	for r.open(&m.engine, cfg.Heads, cfg.KVHeads, r.q.Rows, keys); r.nextHeads(); {
		tasks := r.heads * r.group * ceil(r.q.Rows, r.rows)
		if choosing {
			r.lists = scratch.Sized(r.lists, r.heads*r.group*r.q.Rows*r.gates.top)
			if err := r.workers.RunAs(ctx, "sparse", workers, tasks, r.choose); err != nil {
				return err
			}
		}
		for r.nextRound() {
			if err := r.find(ctx); err != nil {
				return err
			}
			if err := r.workers.RunAs(ctx, "sparse", workers, r.heads*r.blocks, r.pack); err != nil {
				return err
			}
			if err := r.workers.RunAs(ctx, "sparse", workers, tasks, r.attend); err != nil {
				return err
			}
		}
	}
	return nil
}

// reserve returns how many goroutines to use for the sequence, and makes their memory.
func (r *mobaRun) reserve(keys int) int {
	m := r.op
	cfg := &m.cfg
	pairs := float64(r.q.Rows) * min(float64(keys), float64(cfg.TopK)*float64(cfg.Block)) * float64(cfg.Heads)
	n := m.workersFor(r.call.workers, pairs*float64(cfg.HeadDim+cfg.ValueDim))
	for len(r.work) < n {
		r.work = append(r.work, mobaWorker{})
	}
	for len(r.wide) < n {
		r.wide = append(r.wide, nil)
	}
	for i := range n {
		w := &r.work[i]
		w.rows.reserve(&m.engine, r.rows)
		w.some.reserve(&m.engine, r.rows)
		w.ends = scratch.Sized(w.ends, min(ceil(keys, m.cfg.Block), m.engine.perRound))
		w.picked = scratch.Sized(w.picked, r.rows*min(r.gates.top, len(w.ends)))
		w.strip.reserve(&m.engine)
	}
	return n
}

// tileOf returns the head and the queries of a task.
func (r *mobaRun) tileOf(task int) (head, from, to int) {
	tiles := ceil(r.q.Rows, r.rows)
	from = (tiles - 1 - task%tiles) * r.rows // the last, which see most, come first
	return r.head*r.group + task/tiles, from, min(from+r.rows, r.q.Rows)
}

// listOf returns the blocks before its own that a query of a head of the wave chose, or false
// where it reads all.
func (r *mobaRun) listOf(head, query int) (list []int32, chose bool) {
	top := r.gates.top
	if (r.at+query)/r.e.block <= top {
		return nil, false
	}
	return r.lists[((head-r.head*r.group)*r.q.Rows+query)*top:][:top], true
}

// chooseTask has the queries of a tile choose.
func (r *mobaRun) chooseTask(worker, task int) {
	const atOnce = 96
	head, from, end := r.tileOf(task)
	for ; from < end && !r.workers.Stopped(); from += atOnce {
		to := min(from+atOnce, end)
		lists := r.lists[((head-r.head*r.group)*r.q.Rows+from)*r.gates.top:]
		r.gates.choose(&r.workers, &r.work[worker].gate, r.columns(r.q, head, r.e.dim, from, to), head/r.group, lists,
			func(i int) int { return (r.at + from + i) / r.e.block })
	}
}

// find marks the blocks of the round that are needed: of many queries, which are of many
// blocks or choose most of them, all.
func (r *mobaRun) find(ctx context.Context) error {
	const many = 1024
	for h := r.head * r.group; h < (r.head+r.heads)*r.group; h++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		needed := r.needed[(h/r.group-r.head)*r.blocks:][:r.blocks]
		need := func(from, to int) { // blocks of the sequence
			for b := max(from, r.first); b < min(to, r.first+r.blocks); b++ {
				needed[b-r.first] = true
			}
		}
		if r.q.Rows >= many {
			need(0, r.all)
			continue
		}
		need(r.at/r.e.block, r.all) // the queries' own
		work := 0
		for i := r.q.Rows - 1; i >= 0; i-- {
			list, chose := r.listOf(h, i)
			if !chose { // nor did those before it
				need(0, (r.at+i)/r.e.block)
				break
			}
			list = within(list, r.first, r.first+r.blocks)
			r.need(h, list)
			if work += 1 + len(list); work >= lookAfter {
				if err := ctx.Err(); err != nil {
					return err
				}
				work = 0
			}
		}
	}
	return nil
}

// attendTask takes a tile of queries through the round.
func (r *mobaRun) attendTask(worker, task int) {
	w, e := &r.work[worker], r.e
	head, from, to := r.tileOf(task)
	n := to - from
	r.begin(&w.rows, r.q, r.dst, head, from, to)
	if !r.pick(w, head, from, to) {
		return
	}
	for b := r.first; b < r.first+r.blocks && b*e.block <= r.at+to-1; b++ {
		lo := max(b*e.block-r.at-from, 0)              // the first row at or after the block
		hi := min(max((b+1)*e.block-r.at-from, lo), n) // the first row after it
		if lo < hi {
			own := w.rows.part(e, lo, hi)
			r.attendBlock(w, &own, head, b, r.at+from+lo)
		}
		picked := w.picked[:w.ends[b-r.first]]
		if b > r.first {
			picked = picked[w.ends[b-r.first-1]:]
		}
		switch len(picked) {
		case 0:
		case n - hi:
			all := w.rows.part(e, hi, n)
			r.attendBlock(w, &all, head, b, noPosition)
		default:
			w.some.gather(e, &w.rows, picked, 1)
			r.attendBlock(w, &w.some, head, b, noPosition)
			w.some.scatter(e, &w.rows, picked, 1)
		}
		if r.workers.Stopped() {
			return
		}
	}
	r.end(&w.rows, r.dst, r.lse, head, from, to)
}

// pick sorts the rows of a tile by the blocks of the round that they chose, before their own. It
// is false when the workers are stopped.
func (r *mobaRun) pick(w *mobaWorker, head, from, to int) bool {
	w.ends = w.ends[:r.blocks]
	clear(w.ends)
	work, stopped := 0, false
	each := func(f func(row, block int)) {
		for i := from; i < to && !stopped; i++ {
			list, chose := r.listOf(head, i)
			if !chose {
				n := min((r.at+i)/r.e.block-r.first, r.blocks)
				for b := range n {
					f(i-from, b)
				}
				work += max(n, 0)
			}
			for _, b := range within(list, r.first, r.first+r.blocks) {
				f(i-from, int(b)-r.first)
				work++
			}
			if work >= lookAfter {
				work, stopped = 0, r.workers.Stopped()
			}
		}
	}
	each(func(_, b int) { w.ends[b]++ })
	sum := int32(0)
	for b, n := range w.ends { // where they begin, for now
		w.ends[b] = sum
		sum += n
	}
	each(func(row, b int) {
		w.picked[w.ends[b]] = int32(row)
		w.ends[b]++
	})
	return !stopped
}

// attendBlock takes rows through a block.
func (r *mobaRun) attendBlock(w *mobaWorker, x *rows, head, block, at int) {
	t, more := r.tile(head, block, 0)
	for n := 1; ; n++ {
		w.tiles[0][0] = t
		ahead := w.tiles[1][:0]
		if more {
			t, more = r.tile(head, block, n)
			ahead = append(ahead, t)
		}
		r.e.attend(&w.strip, x, w.tiles[0][:], ahead, at)
		if len(ahead) == 0 || at != noPosition && t.start > at+x.n-1 || r.workers.Stopped() {
			return
		}
	}
}

// part is some of the rows, where they stand.
func (x *rows) part(e *engine, from, to int) rows {
	cols := e.outCols()
	return rows{to - from, x.q[from*e.dim : to*e.dim], x.o[from*cols : to*cols], x.top[from:to], x.sum[from:to], x.factor[from:to]}
}

// gather makes the rows copies of some of others, each of them as many rows that follow each
// other as there are heads; scatter puts back what these have become.
func (x *rows) gather(e *engine, of *rows, picked []int32, heads int) {
	d, cols := heads*e.dim, heads*e.outCols()
	x.n = len(picked) * heads
	for i, p := range picked {
		from := int(p)
		copy(x.q[i*d:][:d], of.q[from*d:])
		copy(x.o[i*cols:][:cols], of.o[from*cols:])
		copy(x.top[i*heads:][:heads], of.top[from*heads:])
		copy(x.sum[i*heads:][:heads], of.sum[from*heads:])
	}
}

func (x *rows) scatter(e *engine, of *rows, picked []int32, heads int) {
	cols := heads * e.outCols()
	for i, p := range picked {
		to := int(p)
		copy(of.o[to*cols:][:cols], x.o[i*cols:])
		copy(of.top[to*heads:][:heads], x.top[i*heads:])
		copy(of.sum[to*heads:][:heads], x.sum[i*heads:])
	}
}

// meansOf returns the means of the whole blocks of keys, in memory of the run; of none where
// queries read all.
func (r *mobaRun) meansOf(ctx context.Context, k blas32.General) (blas32.General, error) {
	n := k.Rows / r.op.cfg.Block
	if n < r.op.cfg.TopK {
		n = 0
	}
	r.means, r.k = scratch.Floats(r.means, n*k.Cols), k
	workers := r.op.workersFor(r.call.workers, float64(k.Rows)*float64(k.Cols))
	err := r.workers.RunAs(ctx, "sparse", workers, n, r.mean)
	return mat.Of(r.means, n, k.Cols), err
}

// meanTask makes the mean of a block.
func (r *mobaRun) meanTask(_, b int) {
	const atOnce = 1024
	size, cols := r.op.cfg.Block, r.k.Cols
	mean := r.means[b*cols:][:cols]
	clear(mean)
	for from, end := b*size, (b+1)*size; from < end && !r.workers.Stopped(); from += atOnce {
		addRows(mean, mat.Rows(r.k, from, min(from+atOnce, end)))
	}
	asm.Scale(mean, 1/float32(size), mean)
}
