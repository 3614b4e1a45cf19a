package sparse

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// blocksRun is the working memory of one call of Blocks, and the call itself. Sequences go by
// one after the other, each in rounds of its wave. A round packs the blocks that are chosen,
// then takes tiles of queries through them.
type blocksRun struct {
	op     *Blocks
	call   attention.Call
	choice *Choice
	one    [2]blas32.General // keys and values of Forward

	offsets, kOffsets      []int // of the sequences
	queryBlocks, keyBlocks func(sequence int) int

	wave
	q, dst, lse blas32.General // of the sequence
	list        int            // its first list
	at          int            // position of its first query

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
	workers := r.reserve()
	for r.open(e, cfg.Heads, cfg.KVHeads, r.q.Rows, r.k.Rows); r.nextHeads(); {
		for r.nextRound() {
			if err := r.find(ctx); err != nil {
				return err
			}
			if err := r.workers.RunAs(ctx, "sparse", workers, r.heads*r.blocks, r.pack); err != nil {
				return err
			}
			if err := r.workers.RunAs(ctx, "sparse", workers, r.tasks(), r.attend); err != nil {
				return err
			}
		}
	}
	return nil
}

// reserve returns how many goroutines to use for the sequence, and makes their memory.
func (r *blocksRun) reserve() int {
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
	shared := cfg.Heads / r.choice.Heads // heads of a list
	for h := r.head * r.group; h < (r.head+r.heads)*r.group; h++ {
		if h%shared != 0 && h%r.group != 0 {
			continue // the list of the head before, for the same keys
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		work := 0
		for a := range ceil(r.q.Rows, cfg.QueryBlock) {
			list := r.listOf(a, h)
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

// tasks is how many tiles of queries there are for the wave's query heads.
func (r *blocksRun) tasks() int {
	cfg := &r.op.cfg
	return r.heads * r.group * ceil(r.q.Rows, cfg.QueryBlock) * r.parts()
}

// parts is how many tiles a block of queries has.
func (r *blocksRun) parts() int {
	return ceil(min(r.op.cfg.QueryBlock, r.q.Rows), r.op.tileRows())
}

// attendTask takes one tile of queries through the round.
func (r *blocksRun) attendTask(worker, task int) {
	w, cfg, e := &r.work[worker], &r.op.cfg, &r.op.engine
	parts := r.parts()
	tiles := ceil(r.q.Rows, cfg.QueryBlock) * parts
	head := r.head*r.group + task/tiles
	n := tiles - 1 - task%tiles // the last, which see most when causal, come first
	block := n / parts
	from := block*cfg.QueryBlock + n%parts*r.op.tileRows()
	to := min(from+r.op.tileRows(), (block+1)*cfg.QueryBlock, r.q.Rows)
	if from >= to {
		return
	}
	r.begin(&w.rows, r.q, r.dst, head, from, to)
	list, tile := r.listOf(block, head), 0 // of the first block
	now, next := w.tiles[0][:0], w.tiles[1][:0]
	now, list, tile = r.step(now, head, list, tile)
	for len(now) > 0 {
		if r.workers.Stopped() {
			return
		}
		next, list, tile = r.step(next[:0], head, list, tile)
		at := noPosition
		if x := &now[len(now)-1]; cfg.Causal && x.start+x.keys-1 > r.at+from {
			at = r.at + from
		}
		e.attend(&w.strip, &w.rows, now, next, at)
		now, next = next, now
	}
	r.end(&w.rows, r.dst, r.lse, head, from, to)
}

// step appends to tiles those that share the next step of the softmax: from a tile of the
// list's first block on. It returns what of the list is left.
func (r *blocksRun) step(tiles []packed, head int, list []int32, tile int) ([]packed, []int32, int) {
	for len(list) > 0 && len(tiles) < r.e.group {
		t, more := r.tile(head, int(list[0]), tile)
		tiles = append(tiles, t)
		if tile++; !more {
			list, tile = list[1:], 0
		}
	}
	return tiles, list, tile
}
