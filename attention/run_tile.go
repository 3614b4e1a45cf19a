package attention

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/tile"
)

// forwardWork is what one worker needs for a tile of query rows. A row is one head
// of one query; the heads of a block are side by side, so that they share tiles
// of keys.
type forwardWork struct {
	r  *forwardRun
	it *item

	queryPos, keyPos int64 // positions of the sequence's first query and first key

	block int // number of the block among the item's
	head  int // the block's first query head
	row   int // the tile's first row, counted in the block
	rows  int // rows in the tile

	q        []float32     // [rows][D], scaled queries
	o        []float32     // [rows][Dv in whole panels], sums of weighted values
	top, sum []float32     // [rows], largest logit so far, and sum of exp(logit - top)
	factor   []float32     // [rows], what a strip multiplies o by before it adds
	least    []float32     // [rows], a lower bound of the largest logit; with Config.Skip
	norm     []float32     // [rows], |q|; with Config.Skip
	from, to [][]int       // [sources][rows], the keys that a row sees, in its sequence
	strips   []kernel.Seen // [sources][strips], what the rows of a strip see
	scales   []float32     // [rows], Config.Scale each

	attending kernel.Attending // of attendPlain

	second massWork
	wide   []float32 // [keys of a tile][D + Dv], of a state that is not float32
	s      []float32 // [rows of a strip][keys of a tile + tile.Pad], scores
	exp2   [2]float32

	qParts []float32 // queries, and a strip's weights, in the parts of Config.Precision
	wParts []float32
}

func (a *Attention) scoreStride() int { return a.sizes.Keys + tile.Pad }

// outCols is the width of a row of o: that of whole panels.
func (a *Attention) outCols() int { return whole(a.cfg.ValueDim, a.panel()) }

func (w *forwardWork) reserveTile(a *Attention, sources int) {
	n := a.sizes.Rows
	for len(w.from) < sources {
		w.from, w.to = append(w.from, make([]int, n)), append(w.to, make([]int, n))
	}
	if w.s != nil {
		return
	}
	w.q, w.o = scratch.Floats(nil, n*a.cfg.HeadDim), scratch.Floats(nil, n*a.outCols())
	w.s = scratch.Floats(nil, a.height()*a.scoreStride())
	w.qParts, w.wParts = scratch.Floats(nil, a.queryStrips()), scratch.Floats(nil, a.weightStrip())
	w.top, w.sum, w.factor = make([]float32, n), make([]float32, n), make([]float32, n)
	w.least, w.norm, w.scales = make([]float32, n), make([]float32, n), make([]float32, n)
	for i := range w.scales {
		w.scales[i] = a.cfg.Scale
	}
}

// attendTask attends from one tile of query rows to the round's keys.
func (r *forwardRun) attendTask(worker, task int) {
	w := &r.work[worker]
	it := &r.items[parallel.Find(len(r.items), task, func(i int) int { return r.items[i].queryTasks })]
	n, blocks := task-it.queryTasks, r.blocks()*it.sets
	// The last rows, which see most when causal, come first.
	w.beginTile(r, it, n%blocks, r.tileOf(r.itemRows(it))-1-n/blocks)
	w.restore()
	first := r.round * it.perRound
	last := min(first+it.perRound, it.tiles)
	t := 0 // of the source's first tile
	for s, x := range r.reachesOf(it) {
		for tile := max(0, first-t); tile < min(last-t, x.tiles); tile++ {
			if r.group.Stopped() {
				return
			}
			if t+tile == last-1 {
				w.prefetchRows(r.call.Dst, r.op.cfg.ValueDim)
			}
			w.attendKeys(s, x.first+tile, t+tile-first)
		}
		t += x.tiles
	}
	if last == it.tiles {
		w.writeRows()
	} else {
		w.save()
	}
}

// beginTile readies the worker for a tile of a block of heads, counted from the
// item's first.
func (w *forwardWork) beginTile(r *forwardRun, it *item, block, tile int) {
	a := r.op
	w.r, w.it, w.block = r, it, block
	heads, d := r.blockHeads(), a.cfg.HeadDim
	w.head = (it.set*r.blocks() + block) * heads
	w.row = tile * a.sizes.Rows
	w.rows = min(a.sizes.Rows, r.itemRows(it)-w.row)
	w.queryPos, w.keyPos = r.positions(it.seq)
	w.prefetchRows(r.call.Q, d)
	for i, n := 0, 0; i < w.rows; i += n {
		var q blas32.General
		q, n = w.rowsOf(r.call.Q, d, i)
		kernel.ScaleRows(mat.Of(w.q[i*d:], q.Rows, q.Cols), w.scales[:q.Rows], q)
	}
	w.sightRows()
	w.spanStrips()
	w.splitQueries()
	if a.cfg.Skip > 0 {
		w.bound()
	}
}

// sightRows finds the keys that rows see; the heads of a query see the same.
func (w *forwardWork) sightRows() {
	r, it, heads := w.r, w.it, w.r.blockHeads()
	token, head := w.rowToken(0)
	head -= w.head
	causal := r.causalRanges(it.seq)
	for i := 0; i < w.rows; token, head = token+1, 0 {
		n := min(heads-head, w.rows-i)
		for s := range r.src {
			from, to := 0, 0
			switch {
			case s > 0:
				from, to = r.extraInSight(s, it.seq, token)
			case r.call.Visible != nil:
				from, to = r.rangeInSight(it.seq, token)
			default:
				from, to = causal.at(token)
			}
			for j := i; j < i+n; j++ {
				w.from[s][j], w.to[s][j] = from, to
			}
		}
		i += n
	}
}

// rowsOf returns rows i ... i+n of those in m, Q or Dst, which has d columns for each head,
// as one matrix: all rows where they are of one head, or those of a query, side by side.
func (w *forwardWork) rowsOf(m blas32.General, d, i int) (part blas32.General, n int) {
	heads := w.r.blockHeads()
	token, head := w.rowToken(i)
	if heads == 1 {
		n = w.rows - i
		return mat.Columns(mat.Rows(m, token, token+n), head*d, d), n
	}
	n = min(w.head+heads-head, w.rows-i)
	return mat.Columns(mat.Rows(m, token, token+1), head*d, n*d), n
}

// prefetchRows asks for the rows' memory in m, Q or Dst, which has d columns for each head.
func (w *forwardWork) prefetchRows(m blas32.General, d int) {
	for i, n := 0, 0; i < w.rows; i += n {
		var x blas32.General
		x, n = w.rowsOf(m, d, i)
		kernel.PrefetchRows(x)
	}
}

// narrow intersects a range with another, given in positions that begin at zero.
func narrow(from, to int, f, t, zero int64) (int, int) {
	limit := func(x int64) int { // without overflow
		switch most := max(to, from); {
		case x < zero+int64(from):
			return from
		case x >= zero+int64(most):
			return most
		}
		return int(x - zero)
	}
	return limit(f), min(to, limit(t))
}

// rowToken returns the query, a row of Q, and the head of row i.
func (w *forwardWork) rowToken(i int) (token, head int) {
	heads := w.r.blockHeads()
	return w.it.from + (w.row+i)/heads, w.head + (w.row+i)%heads
}

// rowQuery returns the position and the head of row i, key the position of a key
// of the sequence.
func (w *forwardWork) rowQuery(i int) (position int64, head int) {
	token, head := w.rowToken(i)
	return w.queryPos + int64(token-w.r.qOffsets[w.it.seq]), head
}

func (w *forwardWork) keyPosition(i int) int64 { return w.keyPos + int64(i) }

func (w *forwardWork) dst(i int) []float32 {
	token, head := w.rowToken(i)
	dv := w.r.op.cfg.ValueDim
	return mat.Part(w.r.call.Dst, token, head*dv, dv)
}

// waiting returns where a row waits between rounds.
func (w *forwardWork) waiting(i int) []float32 {
	return w.r.state[w.it.state+2*(w.block*w.r.itemRows(w.it)+w.row+i):][:2]
}

func (w *forwardWork) restore() {
	cols := w.r.op.outCols()
	if w.r.round == 0 {
		clear(w.o[:w.rows*cols])
		clear(w.sum[:w.rows])
		for i := range w.rows {
			w.top[i] = -math.MaxFloat32
		}
		return
	}
	for i := range w.rows {
		s := w.waiting(i)
		w.top[i], w.sum[i] = s[0], s[1]
		copy(w.o[i*cols:][:cols], w.dst(i))
	}
}

func (w *forwardWork) save() {
	for i := range w.rows {
		s := w.waiting(i)
		s[0], s[1] = w.top[i], w.sum[i]
		copy(w.dst(i), w.o[i*w.r.op.outCols():])
	}
}

// writeRows divides by the sums and writes the results.
func (w *forwardWork) writeRows() {
	r, dv, cols := w.r, w.r.op.cfg.ValueDim, w.r.op.outCols()
	w.denominators()
	if r.blockHeads() == 1 {
		dst, n := w.rowsOf(r.call.Dst, dv, 0)
		kernel.ScaleRows(dst, w.factor[:n], blas32.General{Rows: n, Cols: dv, Stride: cols, Data: w.o})
		return
	}
	for i := range w.rows {
		asm.Scale(w.dst(i), w.factor[i], w.o[i*cols:][:dv])
	}
}

// denominators sets factor to what the rows' sums of values are to be multiplied by, and writes
// their log-sum-exps.
func (w *forwardWork) denominators() {
	r := w.r
	if cfg := &r.op.cfg; r.lse.Rows == 0 && cfg.Sinks == nil && !cfg.ReLU {
		for i, sum := range w.sum[:w.rows] {
			w.factor[i] = 0
			if sum != 0 {
				w.factor[i] = 1 / sum
			}
		}
		return
	}
	for i := range w.rows {
		token, head := w.rowToken(i)
		factor, lse := w.denominator(i, head)
		w.factor[i] = factor
		if r.lse.Rows > 0 {
			mat.Row(r.lse, token)[head] = lse
		}
	}
}

// denominator returns what a row's sum of values is to be multiplied by, and the
// log-sum-exp.
func (w *forwardWork) denominator(i, head int) (factor, lse float32) {
	cfg := &w.r.op.cfg
	if cfg.ReLU {
		n := 0
		for s := range w.r.src {
			n += max(0, w.to[s][i]-w.from[s][i])
		}
		return 1 / float32(max(n, 1)), 0
	}
	if cfg.Sinks != nil && !w.r.call.Partial {
		return denominator(w.top[i], w.sum[i], &cfg.Sinks[head], &w.exp2, w.r.lse.Rows > 0)
	}
	return denominator(w.top[i], w.sum[i], nil, &w.exp2, w.r.lse.Rows > 0)
}

// denominator is that of one row of the softmax, with a sink or nil; exp2 is scratch.
// The logarithm is only made where it is asked for: it is most of a small step's end.
func denominator(top, sum float32, sink *float32, exp2 *[2]float32, log bool) (factor, lse float32) {
	factor = 1
	if sink != nil {
		if sum == 0 {
			return 0, *sink
		}
		// Relative to the larger of the two.
		larger := max(top, *sink)
		*exp2 = [2]float32{top - larger, *sink - larger}
		asm.Exp(exp2[:], exp2[:])
		factor, sum, top = exp2[0], float32(sum*exp2[0])+exp2[1], larger
	}
	if sum == 0 {
		return 0, float32(math.Inf(-1))
	}
	if log {
		lse = float32(float64(top) + math.Log(float64(sum)))
	}
	return factor / sum, lse
}

// attendKeys adds a tile of keys of source s, packed in a slot of the round.
func (w *forwardWork) attendKeys(s, tile, slot int) {
	r, a := w.r, w.r.op
	start, end := r.src[s].sequence(w.it.seq)
	t := keyTile{source: s, from: tile * a.sizes.Keys}
	t.to = min(t.from+a.sizes.Keys, end-start)
	set := w.block / r.blocks()
	head := w.head/(a.cfg.Heads/r.src[s].heads) - (w.it.set+set)*r.setHeads(s)
	packed, info := r.slotOf(w.it, slot, set, head)
	at := a.slot()
	t.k, t.v, t.w, t.info = packed[at.k:at.v], packed[at.v:at.w], packed[at.w:], *info
	if slot+1 < min(w.it.perRound, w.it.tiles-r.round*w.it.perRound) {
		t.ahead, _ = r.slotOf(w.it, slot+1, set, head)
	}
	if w.plain(&t) {
		w.attendPlain(&t)
		return
	}
	height := a.height()
	for i := 0; i < w.rows && !r.group.Stopped(); i += height {
		w.strip(&t, i, min(height, w.rows-i))
	}
}

// keyTile is a packed tile of keys.
type keyTile struct {
	source   int
	from, to int // keys of the sequence
	k, v, w  []float32
	info     tileInfo
	ahead    []float32 // the next tile's slot, if there is one: strips ask for it while they work
}
