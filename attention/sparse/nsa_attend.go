package sparse

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
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
				r.blocks.want(i/r.count%cfg.KVHeads*blocks + int(b))
			}
		}
	}
}

// fillTask packs some of the blocks that are wanted.
func (r *nsaRun) fillTask(worker, task int) {
	a := r.op
	blocks := ceil(r.total(), a.cfg.Block)
	size := a.cfg.atOnce(a.cfg.Block)
	for _, x := range r.blocks.wanted[task*size : min((task+1)*size, len(r.blocks.wanted))] {
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
		w.rows.restart(&a.engine)
		w.attendWindow(r, from, to, g)
		w.addTo(r, from, to, g, gate)
	}
}

// addTo adds a branch to dst.
func (w *nsaWorker) addTo(r *nsaRun, from, to, g int, gate blas32.General) {
	a := r.op
	for i := range (to - from) * a.group() {
		t, h := from+i/a.group(), i%a.group()
		dst := r.head(t, g, h)
		asm.Axpy(dst, mat.Row(gate, t)[g*a.group()+h]*inverse(w.rows.sum[i]), w.rows.o[i*a.outCols():][:len(dst)])
	}
}

// attendChosen takes the queries of a tile to the blocks that they chose: to each block
// together all that chose it.
func (w *nsaWorker) attendChosen(r *nsaRun, from, to, g int) {
	blocks := (r.past+to-1)/r.op.cfg.Block + 1
	w.sortChoices(r, from, to, g, blocks)
	most := int32(r.op.gatherTokens())
	for b, at := 0, int32(0); b < blocks && !r.group.Stopped(); b++ {
		next := b + 1
		for next < blocks && w.ends[next] == w.ends[b] {
			next++
		}
		for end := w.ends[b]; at < end; at = min(at+most, end) {
			w.attendBlock(r, b, next, w.queries[at:min(at+most, end)], from, g, 0)
		}
		b = next - 1
	}
}

// attendWindow takes the queries of a tile to the keys of their windows, some queries after
// the other.
func (w *nsaWorker) attendWindow(r *nsaRun, from, to, g int) {
	a := r.op
	w.queries = w.queries[:0]
	for t := range to - from {
		w.queries = append(w.queries, int32(t))
	}
	for at := from; at < to && !r.group.Stopped(); at += a.stripTokens() {
		end := min(at+a.stripTokens(), to)
		for b := max(0, r.past+at-a.cfg.Window+1) / a.cfg.Block; b*a.cfg.Block < r.past+end && !r.group.Stopped(); b++ {
			w.attendBlock(r, b, b+1, w.queries[at-from:end-from], from, g, a.cfg.Window)
		}
	}
}

// sortChoices sets w.queries to the queries that chose each block, block after block, each
// ascending, and w.ends to where those of a block end.
func (w *nsaWorker) sortChoices(r *nsaRun, from, to, g, blocks int) {
	w.ends = scratch.Sized(w.ends, blocks)
	clear(w.ends)
	all := int32(0)
	for t := from; t < to; t++ {
		for _, b := range r.choice(t, g) {
			if b >= 0 {
				w.ends[b]++
				all++
			}
		}
	}
	at := int32(0)
	for b, n := range w.ends {
		w.ends[b] = at // where the next query of the block goes
		at += n
	}
	w.queries = scratch.Sized(w.queries, int(all))
	for t := from; t < to; t++ {
		for _, b := range r.choice(t, g) {
			if b >= 0 {
				w.queries[w.ends[b]] = int32(t - from)
				w.ends[b]++
			}
		}
	}
}

// attendBlock takes some queries of the tile that begins with row from to one block, or with
// a window to what of the block is within it. next is the block that will be needed then.
func (w *nsaWorker) attendBlock(r *nsaRun, b, next int, queries []int32, from, g, window int) {
	a := r.op
	heads, n := a.group(), len(queries)
	first, last := int(queries[0]), int(queries[n-1])
	apart := last-first != n-1
	x := &w.some
	if apart {
		x.gather(&a.engine, &w.rows, queries, heads)
	} else { // those that follow each other stay where they are
		part := w.rows.part(&a.engine, first*heads, (last+1)*heads)
		x = &part
	}
	start := r.past + from + 1 - b*a.cfg.Block // of the block's keys, what the tile's first query sees
	key, end := 0, min(r.keysOf(b), start+last)
	if window > 0 {
		key = max(0, start+first-window) / a.tile.Panel() * a.tile.Panel()
	}
	for from := key; key < end && (key == from || !r.group.Stopped()); key += a.sizes.Keys {
		w.attendKeys(r, x, queries, b, next, g, key, min(key+a.sizes.Keys, end), start-key, window)
	}
	if apart {
		x.scatter(&a.engine, &w.rows, queries, heads)
	}
}

// attendKeys takes rows, those of some queries, to the keys key to end of a block, of which
// query t sees the first start+t, or with a window the last window of these.
func (w *nsaWorker) attendKeys(r *nsaRun, x *rows, queries []int32, b, next, g, key, end, start, window int) {
	a := r.op
	d, cols, heads := a.cfg.HeadDim, a.outCols(), a.group()
	k, v, finite := r.block(g, b)
	keys := end - key
	ahead := r.ahead(g, next)
	hides := start+int(queries[0]) < keys || window > 0 && start+int(queries[len(queries)-1]) > window
	height := stripRows * a.tile.Rows()
	for i := 0; i < x.n; i += height {
		n := min(height, x.n-i)
		s := blas32.General{Rows: n, Cols: a.tile.Panels(keys) * a.tile.Panel(), Stride: r.tileStride(), Data: w.s}
		a.tile.ScoresAhead(s, mat.Of(x.q[i*d:], n, d), k[key*d:], ahead[len(ahead)*i/x.n:])
		s.Cols = keys
		for j := 0; hides && j < n; j++ {
			seen := start + int(queries[(i+j)/heads])
			row := mat.Row(s, j)
			if seen < keys {
				kernel.Hide(row[max(seen, 0):])
			}
			if window > 0 && seen > window {
				kernel.Hide(row[:min(seen-window, keys)])
			}
		}
		a.tile.Weights(s, x.top[i:i+n], x.sum[i:i+n], x.factor[i:i+n])
		w.addValues(r, mat.Of(x.o[i*cols:], n, cols), s, v, r.keysOf(b), key, *finite, x.factor[i:i+n])
	}
}

// stripRows is how many times the kernel's rows scores are kept of at a time.
const stripRows = 3

// tileStride is from row to row of scores of a block's keys.
func (r *nsaRun) tileStride() int { return r.op.tileKeys(r.total()) + padding }

// ahead is the memory of a block that is needed soon, or nothing.
func (r *nsaRun) ahead(g, b int) []float32 {
	blocks := ceil(r.total(), r.op.cfg.Block)
	if b >= blocks || r.blocks.slots[g*blocks+b] < 0 {
		return nil
	}
	return r.blocks.at(r.blocks.slots[g*blocks+b])
}
