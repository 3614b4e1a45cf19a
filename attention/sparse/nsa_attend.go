package sparse

import (
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/tile"
)

// packedBlocks are blocks of keys and values, packed: those of a sequence that some query
// of the call reads.
type packedBlocks struct {
	size   int         // float32 of a block
	slots  []int32     // [KVHeads][blocks]: where a block is packed, -1 for those that are not
	used   int         // slots
	memory [][]float32 // perChunk slots each
	finite []bool      // of each slot: no NaN and no Inf among its values
	wanted []int       // blocks, as they are in slots, that have a slot and must be packed
}

// perChunk is how many slots get their memory together.
const perChunk = 64

// fillAtOnce is how many blocks a task packs.
const fillAtOnce = 8

// begin forgets all blocks, for a number of them of that size.
func (p *packedBlocks) begin(blocks, size int) {
	p.size, p.used = size, 0
	p.slots = scratch.Sized(p.slots, blocks)
	for i := range p.slots {
		p.slots[i] = -1
	}
}

// want gives a block a slot, if it has none.
func (p *packedBlocks) want(block int) {
	if p.slots[block] >= 0 {
		return
	}
	p.slots[block] = int32(p.used)
	if chunk := p.used / perChunk; p.used%perChunk == 0 {
		if chunk == len(p.memory) {
			p.memory = append(p.memory, nil)
		}
		p.memory[chunk] = scratch.Floats(p.memory[chunk], min(perChunk, len(p.slots)-p.used)*p.size)
	}
	if p.used++; p.used > len(p.finite) {
		p.finite = append(p.finite, false)
	}
	p.wanted = append(p.wanted, block)
}

// at returns a slot's memory.
func (p *packedBlocks) at(slot int32) []float32 {
	return p.memory[slot/perChunk][int(slot%perChunk)*p.size:][:p.size]
}

// wantBlocks asks for the blocks that the queries of the stretch read.
func (r *nsaRun) wantBlocks() {
	cfg := &r.op.cfg
	blocks := ceil(r.total(), cfg.Block)
	r.blocks.wanted = r.blocks.wanted[:0]
	if mat.Given(r.seq.gates.Window) {
		from, to := max(0, r.past+r.from-cfg.Window+1), r.past+r.to
		for b := from / cfg.Block; b < ceil(to, cfg.Block); b++ {
			for g := range cfg.KVHeads {
				r.blocks.want(g*blocks + b)
			}
		}
	}
	if mat.Given(r.seq.gates.Selected) {
		for i, b := range r.chosen {
			if b >= 0 {
				r.blocks.want(i/cfg.Count%cfg.KVHeads*blocks + int(b))
			}
		}
	}
}

// fillTask packs some of the blocks that are wanted.
func (r *nsaRun) fillTask(worker, task int) {
	a := r.op
	blocks := ceil(r.total(), a.cfg.Block)
	first := task * fillAtOnce
	for _, x := range r.blocks.wanted[first:min(first+fillAtOnce, len(r.blocks.wanted))] {
		g, b := x/blocks, x%blocks
		k, v := r.tokensOf(&r.work[worker], g, b*a.cfg.Block, min((b+1)*a.cfg.Block, r.total()))
		toK, toV, finite := r.block(g, b)
		a.tile.PackKeys(toK, 0, k)
		a.tile.PackValues(toV, v.Rows, 0, v)
		*finite = tile.Finite(toV)
	}
}

// block returns where the keys and values of a block are packed.
func (r *nsaRun) block(g, b int) (k, v []float32, finite *bool) {
	a := r.op
	slot := r.blocks.slots[g*ceil(r.total(), a.cfg.Block)+b]
	x := r.blocks.at(slot)
	keys := r.keysOf(b)
	kSize := a.tile.Panels(keys) * a.tile.Panel() * a.cfg.HeadDim
	return x[:kSize], x[kSize:][:keys*a.outCols()], &r.blocks.finite[slot]
}

// keysOf is how many keys a block has.
func (r *nsaRun) keysOf(b int) int { return min(r.op.cfg.Block, r.total()-b*r.op.cfg.Block) }

// attendTask attends from a tile of queries, for one key head, to the blocks that they
// chose and to their windows, and adds to dst.
func (r *nsaRun) attendTask(worker, task int) {
	a, w := r.op, &r.work[worker]
	size := a.tileTokens()
	g := task % a.cfg.KVHeads
	from := r.from + task/a.cfg.KVHeads*size
	to := min(from+size, r.to)
	w.load(r, from, to, g)
	if gate := r.seq.gates.Selected; mat.Given(gate) {
		w.attendChosen(r, from, to, g)
		w.addTo(r, from, to, g, gate)
	}
	if gate := r.seq.gates.Window; mat.Given(gate) {
		w.restart(r, (to-from)*a.group())
		for at := from; at < to && !r.group.Stopped(); at += a.stripTokens() {
			w.attendWindow(r, from, at, min(at+a.stripTokens(), to), g)
		}
		w.addTo(r, from, to, g, gate)
	}
}

// addTo adds a branch to dst.
func (w *nsaWorker) addTo(r *nsaRun, from, to, g int, gate blas32.General) {
	a := r.op
	for i := range (to - from) * a.group() {
		t, h := from+i/a.group(), i%a.group()
		dst := r.head(t, g, h)
		asm.Axpy(dst, mat.Row(gate, t)[g*a.group()+h]*inverse(w.sum[i]), w.o[i*a.outCols():][:len(dst)])
	}
}

// attendChosen takes the queries of a tile to the blocks that they chose: to each block
// together all that chose it.
func (w *nsaWorker) attendChosen(r *nsaRun, from, to, g int) {
	w.pairs = w.pairs[:0]
	for t := range to - from {
		for _, b := range r.choice(from+t, g) {
			if b < 0 {
				break
			}
			w.pairs = append(w.pairs, uint64(b)<<32|uint64(t))
		}
	}
	slices.Sort(w.pairs)
	for i := 0; i < len(w.pairs) && !r.group.Stopped(); {
		b, n := w.pairs[i]>>32, 1
		for n < r.op.gatherTokens() && i+n < len(w.pairs) && w.pairs[i+n]>>32 == b {
			n++
		}
		w.attendBlock(r, int(b), w.pairs[i:i+n], from, g)
		i += n
	}
}

// attendBlock takes some queries of the tile that begins with row from to one block.
func (w *nsaWorker) attendBlock(r *nsaRun, b int, pairs []uint64, from, g int) {
	a := r.op
	d, cols, heads := a.cfg.HeadDim, a.outCols(), a.group()
	query := func(i int) int { return int(uint32(pairs[i])) }
	first, n := query(0)*heads, len(pairs)*heads
	x := gathered{w.q[first*d:], w.o[first*cols:], w.top[first:], w.sum[first:], w.factor[first:]}
	apart := query(len(pairs)-1)-query(0) != len(pairs)-1
	if apart { // queries that do not follow each other are copied
		x = w.some
		for i := range pairs {
			at, to := query(i)*heads, i*heads
			copy(x.q[to*d:][:heads*d], w.q[at*d:])
			copy(x.o[to*cols:][:heads*cols], w.o[at*cols:])
			copy(x.top[to:][:heads], w.top[at:])
			copy(x.sum[to:][:heads], w.sum[at:])
		}
	}
	end := min(r.keysOf(b), r.past+from+query(len(pairs)-1)+1-b*a.cfg.Block) // of what the last query sees
	for key := 0; key < end; key += a.sizes.Keys {
		s := w.blockScores(r, mat.Of(x.q, n, d), b, g, key)
		for i := range pairs {
			seen := r.past + from + query(i) + 1 - b*a.cfg.Block - key
			for j := i * heads; seen < s.Cols && j < (i+1)*heads; j++ {
				tile.Hide(mat.Row(s, j)[max(seen, 0):])
			}
		}
		w.softmax(r, s, x, b, g, key)
	}
	if apart {
		for i := range pairs {
			at, to := query(i)*heads, i*heads
			copy(w.o[at*cols:][:heads*cols], x.o[to*cols:])
			copy(w.top[at:][:heads], x.top[to:])
			copy(w.sum[at:][:heads], x.sum[to:])
		}
	}
}

// attendWindow takes rows of the tile that begins with row first to the keys of their
// windows.
func (w *nsaWorker) attendWindow(r *nsaRun, first, from, to, g int) {
	a := r.op
	d, cols, heads, size := a.cfg.HeadDim, a.outCols(), a.group(), a.cfg.Block
	at, n := (from-first)*heads, (to-from)*heads
	x := gathered{w.q[at*d:], w.o[at*cols:], w.top[at:], w.sum[at:], w.factor[at:]}
	for b := max(0, r.past+from-a.cfg.Window+1) / size; b*size < r.past+to; b++ {
		for key := 0; key < r.keysOf(b); key += a.sizes.Keys {
			at := b*size + key // of the first key
			if at+a.sizes.Keys <= r.past+from-a.cfg.Window+1 || at >= r.past+to {
				continue // nobody sees them
			}
			s := w.blockScores(r, mat.Of(x.q, n, d), b, g, key)
			for i := range n {
				end := r.past + from + i/heads + 1 - at // of what the row sees, from the first key on
				row := mat.Row(s, i)
				if end < len(row) {
					tile.Hide(row[max(end, 0):])
				}
				if begin := end - a.cfg.Window; begin > 0 {
					tile.Hide(row[:min(begin, len(row))])
				}
			}
			w.softmax(r, s, x, b, g, key)
		}
	}
}

// blockScores returns the logits of rows with a tile of the keys of a block.
func (w *nsaWorker) blockScores(r *nsaRun, q blas32.General, b, g, key int) blas32.General {
	a := r.op
	k, _, _ := r.block(g, b)
	keys := min(a.sizes.Keys, r.keysOf(b)-key)
	s := blas32.General{Rows: q.Rows, Cols: a.tile.Panels(keys) * a.tile.Panel(), Stride: r.tileStride(), Data: w.s}
	a.tile.Scores(s, q, k[key*a.cfg.HeadDim:])
	s.Cols = keys
	return s
}

// tileStride is from row to row of scores of a block's keys.
func (r *nsaRun) tileStride() int { return r.op.tileKeys(r.total()) + padding }

// softmax takes the logits s of rows with a tile of the keys of a block into their softmax.
func (w *nsaWorker) softmax(r *nsaRun, s blas32.General, x gathered, b, g, key int) {
	_, v, finite := r.block(g, b)
	r.op.tile.Weights(s, x.top[:s.Rows], x.sum[:s.Rows], x.factor[:s.Rows])
	w.addValues(r, mat.Of(x.o, s.Rows, r.op.outCols()), s, v, r.keysOf(b), key, *finite, x.factor[:s.Rows])
}
