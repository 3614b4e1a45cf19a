package attention

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// forwardRun is the working memory of one call, and the call itself.
//
// The work is cut into items: some queries of one sequence, for some sets of
// heads that share nothing with others (a key head and the query heads that read
// it). Items go by in waves of which the packed keys and values fit in memory; a
// wave goes over its keys in rounds when even one item's do not. A round packs
// tiles of keys, then attends from tiles of query rows to them; both are tasks
// that workers share, the same rows of all sets one after the other, because
// they stand in the same pages. What a query row has seen so far waits in Dst
// and r.state between rounds. A row meets tiles of keys in their order whatever
// the division.
type forwardRun struct {
	op     *Attention
	call   Call
	window int               // Config.Window, or a state's
	one    [2]blas32.General // keys and values of Forward
	src    []source          // the raw keys, then each Extra's
	lse    blas32.General    // [queries, H]: Call.LSE, or over lses
	lses   []float32

	massOut, entropyOut blas32.General // [keys, H], [queries, H]: of the call, or over the next
	masses, entropies   []float32

	group parallel.Group

	qOffsets []int   // [sequences + 1], the first query of each
	items    []item  // of the wave
	reaches  []reach // [items][sources]
	shares   shares
	extent   stretch       // the queries for which items are being made
	infos    []tileInfo    // [slots]
	packed   []float32     // [slots], each as slot says
	state    []float32     // top and sum of each row, of items with several rounds
	round    int           // number of the present round
	packs    int           // tasks of the round that pack
	tiles    int           // tasks of the round that attend
	work     []forwardWork // of each worker

	pack, attend, mass, look func(worker, task int)
	stopped                  func() bool
}

// source returns the source of a number, which is at most one more than there
// are.
func (r *forwardRun) source(n int) *source {
	if n < cap(r.src) {
		r.src = r.src[:n+1]
	} else {
		r.src = append(r.src, source{})
	}
	return &r.src[n]
}

func (r *forwardRun) forward(ctx context.Context, a *Attention, call *Call) error {
	r.op = a
	r.src = r.src[:0]
	defer r.dropCall()
	if err := r.checkForward(call); err != nil {
		return err
	}
	r.window = a.cfg.Window
	return r.attendAll(ctx, call)
}

// attendAll does a call that has been checked.
func (r *forwardRun) attendAll(ctx context.Context, call *Call) error {
	a := r.op
	r.call = *call
	r.findShares()
	if r.pack == nil {
		r.pack, r.attend, r.mass, r.look = r.packTask, r.attendTask, r.itemMassTask, r.lookTask
		r.stopped = r.group.Stopped
	}
	r.lse = call.LSE
	if r.lse.Rows == 0 && r.diagnosing() && !a.cfg.ReLU {
		h := a.cfg.Heads
		r.lses = scratch.Floats(r.lses, call.Q.Rows*h)
		r.lse = blas32.General{Rows: call.Q.Rows, Cols: h, Stride: h, Data: r.lses}
	}
	for b := range len(r.qOffsets) - 1 {
		for from := r.qOffsets[b]; from < r.qOffsets[b+1]; from += a.sizes.Block {
			r.extent.seq, r.extent.from, r.extent.to = b, from, min(from+a.sizes.Block, r.qOffsets[b+1])
			if err := r.group.RunAs(ctx, "attention", 1, 1, r.look); err != nil {
				return err
			}
			for set := 0; set < r.sets(); {
				n := r.addItem(set)
				if n == 0 {
					if err := r.doItems(ctx); err != nil {
						return err
					}
				}
				set += n
			}
		}
	}
	if err := r.doItems(ctx); err != nil {
		return err
	}
	return r.diagnose(ctx)
}

// dropCall drops what belongs to the caller.
func (r *forwardRun) dropCall() {
	r.call, r.one, r.lse = Call{}, [2]blas32.General{}, blas32.General{}
	r.massOut, r.entropyOut = blas32.General{}, blas32.General{}
	for s := range r.src {
		r.src[s].clear()
	}
	r.items = r.items[:0]
}

// positions returns the positions of the first query and the first key of a
// sequence.
func (r *forwardRun) positions(b int) (query, key int64) {
	if r.call.KeyPos != nil {
		key = r.call.KeyPos[b]
	}
	if r.call.QueryPos != nil {
		return r.call.QueryPos[b], key
	}
	from, to := r.src[0].sequence(b)
	return key + int64(to-from) - int64(r.qOffsets[b+1]-r.qOffsets[b]), key
}

// causalRange returns the keys of its sequence that causality and window let a query
// see: two numbers that do not fall as row rises.
func (r *forwardRun) causalRange(b, row int) (from, to int) {
	x := r.causalRanges(b)
	return x.at(row)
}

// causalRanges is causalRange for the rows of a sequence: both ends go up by one from row to
// row, as far as there are keys.
type causalRanges struct {
	from, to int64 // of row 0, as if there were keys everywhere
	keys     int64
}

func (r *forwardRun) causalRanges(b int) causalRanges {
	q, k := r.positions(b)
	start, end := r.src[0].sequence(b)
	x := causalRanges{from: math.MinInt64 / 2, to: math.MaxInt64 / 2, keys: int64(end - start)}
	at := q - int64(r.qOffsets[b]) - k // of row 0, in keys
	if w := int64(r.window); w > 0 {
		x.from = at - min(w, MaxPosition) + 1
	}
	if ahead := r.op.cfg.LookAhead; ahead != nil {
		x.to = at + min(int64(*ahead), MaxPosition) + 1
	}
	return x
}

func (x *causalRanges) at(row int) (from, to int) {
	return int(min(max(x.from+int64(row), 0), x.keys)), int(max(min(x.to+int64(row), x.keys), 0))
}

// inSight returns the keys that a query sees as far as a range can tell: visible,
// and Call.Visible.
func (r *forwardRun) rangeInSight(b, row int) (from, to int) {
	from, to = r.causalRange(b, row)
	if r.call.Visible != nil {
		query, key := r.positions(b)
		f, t := r.call.Visible(query + int64(row-r.qOffsets[b]))
		from, to = narrow(from, to, f, t, key)
	}
	return from, to
}

// doItems does the items that are waiting.
func (r *forwardRun) doItems(ctx context.Context) error {
	if len(r.items) == 0 {
		return ctx.Err()
	}
	a := r.op
	rounds, work := 0, int64(0)
	for i := range r.items {
		it := &r.items[i]
		rounds = max(rounds, it.rounds)
		pairs := float64(r.itemRows(it)*r.blocks()*it.sets) * float64(it.tiles*a.sizes.Keys)
		work += int64(min(pairs*float64(a.cfg.HeadDim+a.cfg.ValueDim), math.MaxInt32))
	}
	workers := r.op.workers(r.call.Workers, work)
	last := &r.items[len(r.items)-1]
	slots := last.infos + r.slots(last)
	r.packed = scratch.Floats(r.packed, slots*a.slot().size)
	if cap(r.infos) < slots {
		r.infos = make([]tileInfo, slots)
	}
	r.infos = r.infos[:slots]
	states := last.state
	if last.rounds > 1 {
		states += r.states(last)
	}
	r.state = scratch.Floats(r.state, states)
	r.reserveWorkers(workers)
	for r.round = range rounds {
		r.packs, r.tiles = 0, 0
		for i := range r.items {
			it := &r.items[i]
			it.packTasks, it.queryTasks = r.packs, r.tiles
			if r.round < it.rounds {
				r.packs += min(it.perRound, it.tiles-r.round*it.perRound) * it.sets
				r.tiles += r.tileOf(r.itemRows(it)) * r.blocks() * it.sets
			}
		}
		if err := r.group.RunAs(ctx, "attention", workers, r.packs, r.pack); err != nil {
			return err
		}
		if err := r.group.RunAs(ctx, "attention", workers, r.tiles, r.attend); err != nil {
			return err
		}
	}
	r.items = r.items[:0]
	return nil
}

// reserveWorkers makes sure that each worker has its memory, whichever of them
// get to do something.
func (r *forwardRun) reserveWorkers(workers int) {
	for len(r.work) < workers {
		r.work = append(r.work, forwardWork{})
	}
	for i := range workers {
		r.work[i].reserveTile(r.op, len(r.src))
	}
}

// packTask packs one tile for all heads of a set.
func (r *forwardRun) packTask(worker, task int) {
	it := &r.items[parallel.Find(len(r.items), task, func(i int) int { return r.items[i].packTasks })]
	slot, set := (task-it.packTasks)/it.sets, (task-it.packTasks)%it.sets
	tile, s := r.round*it.perRound+slot, 0
	reaches := r.reachesOf(it)
	for ; tile >= reaches[s].tiles; s++ {
		tile -= reaches[s].tiles
	}
	src, a := &r.src[s], r.op
	start, end := src.sequence(it.seq)
	from := start + (reaches[s].first+tile)*a.sizes.Keys
	to := min(from+a.sizes.Keys, end)
	heads := r.setHeads(s)
	for h := range heads {
		if r.group.Stopped() {
			return
		}
		packed, info := r.slotOf(it, slot, set, h)
		*info = src.packTile(a, (it.set+set)*heads+h, from, to, packed, &r.work[worker].wide)
	}
}

// slotOf returns the memory of a head's tile: head h of a set, both counted from
// the item's first.
func (r *forwardRun) slotOf(it *item, slot, set, h int) ([]float32, *tileInfo) {
	size := r.op.slot().size
	n := (slot*it.sets+set)*r.slotHeads(it) + h
	return r.packed[it.packed+n*size:][:size], &r.infos[it.infos+n]
}
