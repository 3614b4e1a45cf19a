package attention

import (
	"context"
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// run is the working memory of one call, and the call itself.
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
type run struct {
	op   *Attention
	call Call
	one  [2]blas32.General
	src  [2]source
	lse  blas32.General // Call.LSE, or our own
	lses []float32

	massOut, entropyOut blas32.General // of the call, or our own
	masses, entropies   []float32

	group parallel.Group

	qOffsets []int
	items    []item // of the wave
	infos    []tileInfo
	packed   []float32
	state    []float32 // top and sum of each row, of items with several rounds
	round    int
	packs    int // tasks of the round
	tiles    int
	work     []workspace

	pack, attend, mass func(worker, task int)
}

// item is a stretch of queries of one sequence for some sets of heads.
type item struct {
	seq        int
	set, sets  int    // the first, and how many
	from, to   int    // queries, rows of Q
	tiles      [2]int // of keys, of each source
	first      [2]int // the first of these, in tiles from the sequence's beginning
	perRound   int    // tiles
	rounds     int
	packed     int // where its slots begin, in r.packed
	infos      int // and in r.infos
	state      int // and in r.state
	packTasks  int // the first of the round's
	queryTasks int
}

// sets is how many sets of heads there are that share neither raw nor extra
// keys; blockHeads is how many successive query heads share both.
func (r *run) sets() int {
	if r.src[1].heads == 0 {
		return r.src[0].heads
	}
	return gcd(r.src[0].heads, r.src[1].heads)
}

func (r *run) blockHeads() int {
	heads := r.op.cfg.Heads
	if r.src[1].heads == 0 {
		return heads / r.src[0].heads
	}
	return gcd(heads/r.src[0].heads, heads/r.src[1].heads)
}

func gcd(a, b int) int {
	for b > 0 {
		a, b = b, a%b
	}
	return a
}

// setHeads is how many heads of a source belong to a set.
func (r *run) setHeads(src int) int { return r.src[src].heads / r.sets() }

func (r *run) run(ctx context.Context, a *Attention, call *Call) error {
	r.op = a
	defer r.forget()
	if err := r.check(call); err != nil {
		return err
	}
	r.call = *call
	if r.pack == nil {
		r.pack, r.attend, r.mass = r.packTask, r.attendTask, r.massTask
	}
	r.lse = call.LSE
	if r.lse.Rows == 0 && r.diagnosing() && !a.cfg.ReLU {
		h := a.cfg.Heads
		r.lses = scratch.Floats(r.lses, call.Q.Rows*h)
		r.lse = blas32.General{Rows: call.Q.Rows, Cols: h, Stride: h, Data: r.lses}
	}
	for b := range len(r.qOffsets) - 1 {
		for from := r.qOffsets[b]; from < r.qOffsets[b+1]; from += a.sizes.block {
			to := min(from+a.sizes.block, r.qOffsets[b+1])
			for set := 0; set < r.sets(); {
				n := r.add(b, set, from, to)
				if n == 0 {
					if err := r.wave(ctx); err != nil {
						return err
					}
				}
				set += n
			}
		}
	}
	if err := r.wave(ctx); err != nil {
		return err
	}
	return r.diagnose(ctx)
}

// forget drops what belongs to the caller.
func (r *run) forget() {
	r.call, r.one, r.lse = Call{}, [2]blas32.General{}, blas32.General{}
	r.massOut, r.entropyOut = blas32.General{}, blas32.General{}
	r.src[0].clear()
	r.src[1].clear()
	r.items = r.items[:0]
}

// add puts an item into the wave, for as many of the sets from set on as fit; it
// returns their number, which is 0 when the wave is full.
func (r *run) add(b, set, from, to int) int {
	a := r.op
	it := item{seq: b, set: set, sets: r.sets() - set, from: from, to: to}
	keys := a.sizes.keys
	heads := 0
	for s := range r.src {
		first, last := 0, 0
		if s == 0 {
			first, _ = r.visible(b, from)
			_, last = r.visible(b, to-1)
		} else {
			f, l := r.src[1].sequence(b)
			last = l - f
		}
		if last > first {
			it.first[s] = first / keys
			it.tiles[s] = (last+keys-1)/keys - it.first[s]
			heads = max(heads, r.setHeads(s))
		}
	}
	tiles, size := it.tiles[0]+it.tiles[1], a.slot().size*heads
	it.perRound = tiles
	if size > 0 {
		it.perRound = min(tiles, max(1, a.sizes.pack/size))
	}
	if tiles > 0 {
		it.rounds = (tiles + it.perRound - 1) / it.perRound
	} else {
		it.rounds, it.perRound = 1, 1
	}
	size *= it.perRound
	if size > 0 {
		it.sets = min(it.sets, max(1, a.sizes.pack/size))
	}
	if n := len(r.items); n > 0 {
		last := &r.items[n-1]
		it.packed = last.packed + r.slots(last)*a.slot().size
		it.infos = last.infos + r.slots(last)
		it.state = last.state
		if last.rounds > 1 {
			it.state += r.states(last)
		}
		if it.packed+it.sets*size > a.sizes.pack || it.rounds > 1 {
			return 0
		}
	}
	r.items = append(r.items, it)
	return it.sets
}

// slotHeads is how many slots a tile of an item has at the most.
func (r *run) slotHeads(it *item) (heads int) {
	for s := range it.tiles {
		if it.tiles[s] > 0 {
			heads = max(heads, r.setHeads(s))
		}
	}
	return heads
}

// slots is how many slots an item has, states how many float32 its rows take
// between rounds.
func (r *run) slots(it *item) int  { return it.perRound * it.sets * r.slotHeads(it) }
func (r *run) states(it *item) int { return 2 * r.rows(it) * r.blocks() * it.sets }

// blocks is how many blocks of heads a set has, rows how many rows a block: a
// row is a query of one head, the heads of a query side by side.
func (r *run) blocks() int         { return r.op.cfg.Heads / r.sets() / r.blockHeads() }
func (r *run) rows(it *item) int   { return (it.to - it.from) * r.blockHeads() }
func (r *run) tileOf(rows int) int { return (rows + r.op.sizes.rows - 1) / r.op.sizes.rows }

// position returns the positions of the first query and the first key of a
// sequence.
func (r *run) position(b int) (query, key int64) {
	if r.call.KeyPos != nil {
		key = r.call.KeyPos[b]
	}
	if r.call.QueryPos != nil {
		return r.call.QueryPos[b], key
	}
	from, to := r.src[0].sequence(b)
	return key + int64(to-from) - int64(r.qOffsets[b+1]-r.qOffsets[b]), key
}

// visible returns the keys of its sequence that causality and window let a query
// see: two numbers that do not fall as row rises.
func (r *run) visible(b, row int) (from, to int) {
	q, k := r.position(b)
	at := q + int64(row-r.qOffsets[b]) - k // in keys
	start, end := r.src[0].sequence(b)
	lo, hi := int64(0), int64(end-start)
	if w := int64(r.op.cfg.Window); w > 0 {
		lo = max(lo, at-min(w, maxPosition)+1)
	}
	if ahead := r.op.cfg.LookAhead; ahead != nil {
		hi = min(hi, at+min(int64(*ahead), maxPosition)+1)
	}
	lo, hi = min(lo, int64(end-start)), max(hi, 0)
	return int(lo), int(hi)
}

// inSight returns the keys that a query sees as far as a range can tell: visible,
// and Call.Visible.
func (r *run) inSight(b, row int) (from, to int) {
	from, to = r.visible(b, row)
	if r.call.Visible != nil {
		query, key := r.position(b)
		f, t := r.call.Visible(query + int64(row-r.qOffsets[b]))
		from, to = narrow(from, to, f, t, key)
	}
	return from, to
}

// wave does the items that are waiting.
func (r *run) wave(ctx context.Context) error {
	if len(r.items) == 0 {
		return ctx.Err()
	}
	a := r.op
	rounds, work := 0, int64(0)
	for i := range r.items {
		it := &r.items[i]
		rounds = max(rounds, it.rounds)
		pairs := float64(r.rows(it)*r.blocks()*it.sets) * float64((it.tiles[0]+it.tiles[1])*a.sizes.keys)
		work += int64(min(pairs*float64(a.cfg.HeadDim+a.cfg.ValueDim), math.MaxInt32))
	}
	workers := a.workers(work)
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
	r.reserve(workers)
	for r.round = range rounds {
		r.packs, r.tiles = 0, 0
		for i := range r.items {
			it := &r.items[i]
			it.packTasks, it.queryTasks = r.packs, r.tiles
			if r.round < it.rounds {
				r.packs += min(it.perRound, it.tiles[0]+it.tiles[1]-r.round*it.perRound) * it.sets
				r.tiles += r.tileOf(r.rows(it)) * r.blocks() * it.sets
			}
		}
		if err := r.group.Run(ctx, workers, r.packs, r.pack); err != nil {
			return wrap(ctx, err)
		}
		if err := r.group.Run(ctx, workers, r.tiles, r.attend); err != nil {
			return wrap(ctx, err)
		}
	}
	r.items = r.items[:0]
	return nil
}

// reserve makes sure that there is a workspace for each worker, whichever of them
// get to do something.
func (r *run) reserve(workers int) {
	for len(r.work) < workers {
		r.work = append(r.work, workspace{})
	}
	for i := range workers {
		r.work[i].reserve(r.op)
	}
}

// packTask packs one tile for all heads of a set.
func (r *run) packTask(_, task int) {
	it := &r.items[r.find(func(it *item) int { return it.packTasks }, task)]
	slot, set := (task-it.packTasks)/it.sets, (task-it.packTasks)%it.sets
	tile, s := r.round*it.perRound+slot, 0
	if tile >= it.tiles[0] {
		tile, s = tile-it.tiles[0], 1
	}
	src, a := &r.src[s], r.op
	start, end := src.sequence(it.seq)
	from := start + (it.first[s]+tile)*a.sizes.keys
	to := min(from+a.sizes.keys, end)
	heads := r.setHeads(s)
	for h := range heads {
		packed, info := r.slotOf(it, slot, set, h)
		*info = src.packTile(a, (it.set+set)*heads+h, from, to, packed)
	}
}

// slotOf returns the memory of a head's tile: head h of a set, both counted from
// the item's first.
func (r *run) slotOf(it *item, slot, set, h int) ([]float32, *tileInfo) {
	size := r.op.slot().size
	n := (slot*it.sets+set)*r.slotHeads(it) + h
	return r.packed[it.packed+n*size:][:size], &r.infos[it.infos+n]
}

// find returns the last item whose tasks begin at or before task.
func (r *run) find(start func(*item) int, task int) int {
	lo, hi := 0, len(r.items)
	for hi-lo > 1 {
		if mid := (lo + hi) / 2; start(&r.items[mid]) <= task {
			lo = mid
		} else {
			hi = mid
		}
	}
	return lo
}

// wrap gives a panic in a worker the package's name.
func wrap(ctx context.Context, err error) error {
	if err == ctx.Err() {
		return err
	}
	return fmt.Errorf("attention: %w", err)
}
