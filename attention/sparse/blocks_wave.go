package sparse

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// wave goes over the keys of a sequence: as many key heads at a time as fit in memory when
// packed, and of these perRound blocks at a time, a round. What queries have seen so far waits
// in dst and in waiting between rounds, so that a query meets blocks in their order whatever
// the division.
type wave struct {
	e             *engine
	kvHeads       int
	group         int                // query heads that read a key head
	queries, keys int                // of the sequence
	k, v, weights blas32.General     // of the sequence
	states        []*attention.State // that hold its keys and values instead, one for each key head

	head, heads          int  // key heads of the wave: the first, and how many
	first, blocks, slots int  // blocks of the round: the first, and how many; and tiles, at the most
	last                 bool // the round is the wave's last
	all, together        int  // blocks of the sequence; key heads of a wave, at the most

	packed  []float32   // [heads][slots]
	finite  []bool      // [heads][slots]
	needed  []bool      // [heads][blocks]: some query chose it
	waiting []float32   // [query heads of the wave][queries][2]: top and sum between rounds
	wide    [][]float32 // of each worker: tokens of a state that are not stored as float32, or not in one piece

	workers parallel.Group
}

// open begins with a sequence, whose k, v and weights, or states, have been set.
func (w *wave) open(e *engine, heads, kvHeads, queries, keys int) {
	w.e, w.kvHeads, w.group, w.queries, w.keys = e, kvHeads, heads/kvHeads, queries, keys
	w.all = ceil(keys, e.block)
	most := min(w.all, e.perRound)
	w.slots = min(most*e.tiles, ceil(keys, e.keys)+most)
	w.together = max(1, min(kvHeads, e.sizes.Pack/max(w.slots*e.slot.size, 1)))
	w.head, w.heads = 0, 0
}

// nextHeads goes to the next key heads, or tells that there are none.
func (w *wave) nextHeads() bool {
	w.head += w.heads
	w.heads = min(w.together, w.kvHeads-w.head)
	w.first, w.blocks, w.last = 0, 0, false
	if w.heads == 0 {
		return false
	}
	most := min(w.all, w.e.perRound)
	w.packed = scratch.Floats(w.packed, w.heads*w.slots*w.e.slot.size)
	w.finite = scratch.Sized(w.finite, w.heads*w.slots)
	w.needed = scratch.Sized(w.needed, w.heads*most)
	if w.all > most {
		w.waiting = scratch.Floats(w.waiting, 2*w.heads*w.group*w.queries)
	}
	return true
}

// nextRound goes to the next blocks of the key heads, or tells that there are none: there is
// one round at least. None of its blocks is needed yet.
func (w *wave) nextRound() bool {
	if w.last {
		return false
	}
	w.first += w.blocks
	w.blocks = min(w.e.perRound, w.all-w.first)
	w.last = w.first+w.blocks == w.all
	clear(w.needed[:w.heads*w.blocks])
	return true
}

// need marks blocks of the round as needed of a query head.
func (w *wave) need(head int, list []int32) {
	needed := w.needed[(head/w.group-w.head)*w.blocks:][:w.blocks]
	for _, x := range list {
		needed[int(x)-w.first] = true
	}
}

// packTask packs a block for a key head, if it is needed.
func (w *wave) packTask(worker, task int) {
	if !w.needed[task] {
		return
	}
	e := w.e
	head, block := task/w.blocks, task%w.blocks
	g := w.head + head
	for t := range e.tiles {
		from := (w.first+block)*e.block + t*e.keys
		to := min(from+e.keys, (w.first+block+1)*e.block, w.keys)
		if from >= to || t > 0 && w.workers.Stopped() {
			return
		}
		slot := head*w.slots + block*e.tiles + t
		data := w.packed[slot*e.slot.size:][:e.slot.size]
		k, v := w.rowsOf(worker, g, from, to)
		w.finite[slot] = e.packTile(data, k, v)
		if mat.Given(w.weights) {
			for j := range to - from {
				data[e.slot.w+j] = mat.Part(w.weights, from+j, min(g, w.weights.Cols-1), 1)[0]
			}
		}
	}
}

// rowsOf returns keys and values of a key head, where they stand or in the worker's memory.
func (w *wave) rowsOf(worker, g, from, to int) (k, v blas32.General) {
	if w.states != nil {
		return heldRows(&w.wide[worker], w.states[g], from, to, w.e.dim, w.e.valueDim)
	}
	return w.columns(w.k, g, w.e.dim, from, to), w.columns(w.v, g, w.e.valueDim, from, to)
}

// heldRows returns tokens of a state of one head, where they stand or in memory for them.
func heldRows(memory *[]float32, s *attention.State, from, to, dim, valueDim int) (k, v blas32.General) {
	n := to - from
	if seg, ok := s.Segment(from); ok && seg.Tokens >= n { // of none, a state may have no token
		if k, v, ok := seg.Float32(); ok {
			return mat.Rows(k, 0, n), mat.Rows(v, 0, n)
		}
	}
	*memory = scratch.Floats(*memory, n*(dim+valueDim))
	k, v = mat.Of(*memory, n, dim), mat.Of((*memory)[n*dim:], n, valueDim)
	for at := 0; at < n; {
		seg, _ := s.Segment(from + at)
		to := min(at+seg.Tokens, n)
		err := seg.Keys(mat.Rows(k, at, to), 0, 0)
		if err == nil {
			err = seg.Values(mat.Rows(v, at, to), 0, 0)
		}
		if err != nil {
			panic(err) // shapes that do not go with the state
		}
		at = to
	}
	return k, v
}

// tile returns a tile of a block of the round for a query head, and whether the block has
// more after it.
func (w *wave) tile(head, block, n int) (t packed, more bool) {
	e := w.e
	start := block*e.block + n*e.keys
	slot := (head/w.group-w.head)*w.slots + (block-w.first)*e.tiles + n
	return packed{
		data: w.packed[slot*e.slot.size:][:e.slot.size], keys: min(e.keys, (block+1)*e.block-start, w.keys-start), start: start,
		finite: w.finite[slot], weighted: mat.Given(w.weights),
	}, n+1 < e.tiles && start+e.keys < w.keys
}

// begin readies rows for queries from .. to of a head: new ones or, after the first round, as
// they wait.
func (w *wave) begin(x *rows, q, dst blas32.General, head, from, to int) {
	x.begin(w.e, w.columns(q, head, w.e.dim, from, to))
	if w.first > 0 {
		x.restore(w.e, w.columns(dst, head, w.e.valueDim, from, to), w.wait(head, from, to))
	}
}

// end writes the results of rows or, before the last round, has them wait.
func (w *wave) end(x *rows, dst, lse blas32.General, head, from, to int) {
	dst = w.columns(dst, head, w.e.valueDim, from, to)
	if !w.last {
		x.save(w.e, dst, w.wait(head, from, to))
		return
	}
	if lse.Rows > 0 {
		lse = w.columns(lse, head, 1, from, to)
	}
	x.end(w.e, dst, lse)
}

// columns is a head's part of rows of a matrix.
func (w *wave) columns(m blas32.General, head, dim, from, to int) blas32.General {
	return mat.Columns(mat.Rows(m, from, to), head*dim, dim)
}

// wait returns where rows wait between rounds.
func (w *wave) wait(head, from, to int) []float32 {
	return w.waiting[2*((head-w.head*w.group)*w.queries+from):][:2*(to-from)]
}

// forget drops what belongs to the caller.
func (w *wave) forget() {
	w.k, w.v, w.weights, w.states = blas32.General{}, blas32.General{}, blas32.General{}, nil
}

// bytes is the memory of a wave, at the most, for so many queries and keys.
func (e *engine) waveBytes(heads, kvHeads, queries, keys int) int64 {
	blocks := min(int64(e.perRound), (int64(keys)+int64(e.block)-1)/int64(e.block))
	slots := min(blocks*int64(e.tiles), int64(keys)/int64(e.keys)+1+blocks)
	together := max(1, min(int64(kvHeads), int64(e.sizes.Pack)/max(slots*int64(e.slot.size), 1)))
	n := together * (slots*(4*int64(e.slot.size)+1) + blocks)
	if int64(keys) > int64(e.perRound)*int64(e.block) {
		n += 8 * together * int64(heads/kvHeads) * int64(queries)
	}
	return n
}
