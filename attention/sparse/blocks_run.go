package sparse

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// blocksRun is the working memory of one call of Blocks, and the call itself. Sequences go by
// one after the other; of each, as many key heads at a time as fit in memory when packed; of
// these, perRound blocks of keys at a time. A round packs the blocks that are chosen, then
// takes tiles of queries through them; what a query has seen so far waits in Dst and
// r.waiting between rounds. A query meets blocks in their order whatever the division.
type blocksRun struct {
	op     *Blocks
	call   attention.Call
	choice *Choice
	one    [2]blas32.General // keys and values of Forward

	offsets, kOffsets      []int // of the sequences
	queryBlocks, keyBlocks func(sequence int) int

	q, k, v, dst, lse, weights blas32.General // of the sequence
	list                       int            // its first list
	at                         int            // position of its first query
	head, heads                int            // key heads of the wave: the first, and how many
	first, blocks, slots       int            // blocks of the round: the first, and how many; and tiles
	last                       bool           // the round is the sequence's last

	packed  []float32 // [heads][slots]
	finite  []bool    // [heads][slots]
	needed  []bool    // [heads][blocks]: some query chose it
	waiting []float32 // [query heads of the wave][queries][2]: top and sum between rounds

	group        parallel.Group
	pack, attend func(worker, task int)
	work         []blocksWorker
}

// blocksWorker is what one worker needs for a tile of query rows.
type blocksWorker struct {
	rows  rows
	strip stripWork
	tiles [2][]packed // those under way, and those that come next
}

// sequence attends over one sequence.
func (r *blocksRun) sequence(ctx context.Context, s int) error {
	c, cfg, e := &r.call, &r.op.cfg, &r.op.engine
	from, to := r.offsets[s], r.offsets[s+1]
	kFrom, kTo := r.kOffsets[s], r.kOffsets[s+1]
	if from == to {
		return nil
	}
	r.q, r.dst, r.lse = mat.Rows(c.Q, from, to), mat.Rows(c.Dst, from, to), c.LSE
	if r.lse.Rows > 0 {
		r.lse = mat.Rows(r.lse, from, to)
	}
	r.k, r.v, r.weights = mat.Rows(c.K[0], kFrom, kTo), mat.Rows(c.V[0], kFrom, kTo), c.LogWeights
	if mat.Given(r.weights) {
		r.weights = mat.Rows(r.weights, kFrom, kTo)
	}
	r.at = r.place(s)
	workers := r.workers()
	blocks := r.keyBlocksOf(s)
	most := min(blocks, e.perRound) // of a round
	r.slots = min(most*e.tiles, ceil(r.k.Rows, e.keys)+most)
	together := max(1, min(cfg.KVHeads, e.sizes.Pack/max(r.slots*e.slot.size, 1)))
	for r.head = 0; r.head < cfg.KVHeads; r.head += r.heads {
		r.heads = min(together, cfg.KVHeads-r.head)
		r.packed = scratch.Floats(r.packed, r.heads*r.slots*e.slot.size)
		r.finite = scratch.Sized(r.finite, r.heads*r.slots)
		r.needed = scratch.Sized(r.needed, r.heads*most)
		if blocks > most {
			r.waiting = scratch.Floats(r.waiting, 2*r.heads*(cfg.Heads/cfg.KVHeads)*r.q.Rows)
		}
		for r.first = 0; r.first == 0 || r.first < blocks; r.first += most {
			r.blocks = min(most, blocks-r.first)
			r.last = r.first+r.blocks == blocks
			if err := r.find(ctx); err != nil {
				return err
			}
			if err := r.group.RunAs(ctx, "sparse", workers, r.heads*r.blocks, r.pack); err != nil {
				return err
			}
			if err := r.group.RunAs(ctx, "sparse", workers, r.tasks(), r.attend); err != nil {
				return err
			}
			if r.last {
				break
			}
		}
	}
	return nil
}

// workers is how many goroutines to use for the sequence; it makes their memory.
func (r *blocksRun) workers() int {
	b := r.op
	lists := ceil(r.q.Rows, b.cfg.QueryBlock) * r.choice.Heads
	chosen := r.choice.Offsets[r.list+lists] - r.choice.Offsets[r.list]
	pairs := float64(chosen) * float64(b.cfg.Heads/r.choice.Heads) * float64(min(b.cfg.QueryBlock, r.q.Rows)) * float64(min(b.cfg.KeyBlock, r.k.Rows))
	n := b.workersFor(r.call.Workers, pairs*float64(b.cfg.HeadDim+b.cfg.ValueDim))
	for len(r.work) < n {
		r.work = append(r.work, blocksWorker{})
	}
	for i := range n {
		w := &r.work[i]
		w.rows.reserve(&b.engine, min(b.tileRows(), r.q.Rows))
		w.strip.reserve(&b.engine)
		for j := range w.tiles {
			w.tiles[j] = scratch.Sized(w.tiles[j], b.engine.group)[:0]
		}
	}
	return n
}

// listOf returns the blocks of the round that a block of queries chose for a query head, those
// wholly after it left out.
func (r *blocksRun) listOf(block, head int) []int32 {
	cfg := &r.op.cfg
	n := r.list + block*r.choice.Heads + head/(cfg.Heads/r.choice.Heads)
	to := r.first + r.blocks
	if cfg.Causal {
		end := r.at + min((block+1)*cfg.QueryBlock, r.q.Rows) // after the last query
		to = max(min(to, ceil(max(end, 0), cfg.KeyBlock)), r.first)
	}
	return within(r.choice.List(n), r.first, to)
}

// find marks the blocks of the round that are needed.
func (r *blocksRun) find(ctx context.Context) error {
	cfg := &r.op.cfg
	clear(r.needed[:r.heads*r.blocks])
	shared := cfg.Heads / r.choice.Heads // heads of a list
	for h := r.head * (cfg.Heads / cfg.KVHeads); h < (r.head+r.heads)*(cfg.Heads/cfg.KVHeads); h++ {
		needed := r.needed[(h/(cfg.Heads/cfg.KVHeads)-r.head)*r.blocks:][:r.blocks]
		if shared > 1 && h%shared != 0 && h%(cfg.Heads/cfg.KVHeads) != 0 {
			continue // the list of the head before, for the same keys
		}
		for a := range ceil(r.q.Rows, cfg.QueryBlock) {
			for _, x := range r.listOf(a, h) {
				needed[int(x)-r.first] = true
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// packTask packs a block for a key head.
func (r *blocksRun) packTask(_, task int) {
	if !r.needed[task] {
		return
	}
	e, cfg := &r.op.engine, &r.op.cfg
	head, block := task/r.blocks, task%r.blocks
	g := r.head + head
	for t := range e.tiles {
		from := (r.first+block)*e.block + t*e.keys
		to := min(from+e.keys, (r.first+block+1)*e.block, r.k.Rows)
		if from >= to {
			return
		}
		slot := head*r.slots + block*e.tiles + t
		data := r.packed[slot*e.slot.size:][:e.slot.size]
		r.finite[slot] = e.packTile(data, mat.Columns(mat.Rows(r.k, from, to), g*cfg.HeadDim, cfg.HeadDim), mat.Columns(mat.Rows(r.v, from, to), g*cfg.ValueDim, cfg.ValueDim))
		if mat.Given(r.weights) {
			for j := range to - from {
				data[e.slot.w+j] = mat.Part(r.weights, from+j, min(g, r.weights.Cols-1), 1)[0]
			}
		}
	}
}

// tasks is how many tiles of queries there are for the wave's query heads.
func (r *blocksRun) tasks() int {
	cfg := &r.op.cfg
	return r.heads * (cfg.Heads / cfg.KVHeads) * ceil(r.q.Rows, cfg.QueryBlock) * ceil(cfg.QueryBlock, r.op.tileRows())
}

// attendTask takes one tile of queries through the round.
func (r *blocksRun) attendTask(worker, task int) {
	w, cfg, e := &r.work[worker], &r.op.cfg, &r.op.engine
	parts := ceil(cfg.QueryBlock, r.op.tileRows())
	tiles := ceil(r.q.Rows, cfg.QueryBlock) * parts
	head := r.head*(cfg.Heads/cfg.KVHeads) + task/tiles
	n := tiles - 1 - task%tiles // the last, which see most when causal, come first
	block := n / parts
	from := block*cfg.QueryBlock + n%parts*r.op.tileRows()
	to := min(from+r.op.tileRows(), (block+1)*cfg.QueryBlock, r.q.Rows)
	if from >= to {
		return
	}
	q := mat.Columns(mat.Rows(r.q, from, to), head*cfg.HeadDim, cfg.HeadDim)
	dst := mat.Columns(mat.Rows(r.dst, from, to), head*cfg.ValueDim, cfg.ValueDim)
	w.rows.begin(e, q)
	wait := r.wait(head, from, to)
	if r.first > 0 {
		w.rows.restore(e, dst, wait)
	}
	list := r.listOf(block, head)
	at := noPosition
	tile := 0 // of the first block
	now, next := w.tiles[0][:0], w.tiles[1][:0]
	now, list, tile = r.step(now, head, list, tile)
	for len(now) > 0 {
		if r.group.Stopped() {
			return
		}
		next, list, tile = r.step(next[:0], head, list, tile)
		at = noPosition
		if x := &now[len(now)-1]; cfg.Causal && x.start+x.keys-1 > r.at+from {
			at = r.at + from
		}
		e.attend(&w.strip, &w.rows, now, next, at)
		now, next = next, now
	}
	if !r.last {
		w.rows.save(e, dst, wait)
		return
	}
	if r.lse.Rows > 0 {
		w.rows.end(e, dst, mat.Columns(mat.Rows(r.lse, from, to), head, 1))
	} else {
		w.rows.end(e, dst, blas32.General{})
	}
}

// step appends to tiles those that share the next step of the softmax: from a tile of the
// list's first block on. It returns what of the list is left.
func (r *blocksRun) step(tiles []packed, head int, list []int32, tile int) ([]packed, []int32, int) {
	e, cfg := &r.op.engine, &r.op.cfg
	for len(list) > 0 && len(tiles) < e.group {
		block := int(list[0])
		start := block*e.block + tile*e.keys
		slot := (head/(cfg.Heads/cfg.KVHeads)-r.head)*r.slots + (block-r.first)*e.tiles + tile
		tiles = append(tiles, packed{
			data: r.packed[slot*e.slot.size:][:e.slot.size], keys: min(e.keys, (block+1)*e.block-start, r.k.Rows-start), start: start,
			finite: r.finite[slot], weighted: mat.Given(r.weights),
		})
		if tile++; tile == e.tiles || start+e.keys >= r.k.Rows {
			list, tile = list[1:], 0
		}
	}
	return tiles, list, tile
}

// wait returns where rows wait between rounds, or nothing where there is one.
func (r *blocksRun) wait(head, from, to int) []float32 {
	if r.first == 0 && r.last {
		return nil
	}
	cfg := &r.op.cfg
	h := head - r.head*(cfg.Heads/cfg.KVHeads)
	return r.waiting[2*(h*r.q.Rows+from):][:2*(to-from)]
}

// restore and save take the rows up where they were left, and leave them: sums of values in
// dst.
func (x *rows) restore(e *engine, dst blas32.General, wait []float32) {
	for i := range x.n {
		x.top[i], x.sum[i] = wait[2*i], wait[2*i+1]
		copy(x.o[i*e.outCols():], mat.Row(dst, i))
	}
}

func (x *rows) save(e *engine, dst blas32.General, wait []float32) {
	for i := range x.n {
		wait[2*i], wait[2*i+1] = x.top[i], x.sum[i]
		copy(mat.Row(dst, i), x.o[i*e.outCols():])
	}
}
