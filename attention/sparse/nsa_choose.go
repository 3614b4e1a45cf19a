package sparse

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/tile"
	"github.com/subquad/subquad/internal/topk"
)

// chooseTask attends from some queries to the compressed keys, for one key head, sets dst
// to that, times its gate, and chooses blocks.
func (r *nsaRun) chooseTask(worker, task int) {
	a, w := r.op, &r.work[worker]
	cfg, size := &a.cfg, a.stripTokens()
	g := task % cfg.KVHeads
	// The last rows, which see most, come first.
	from := r.from + (ceil(r.to-r.from, size)-1-task/cfg.KVHeads)*size
	to := min(from+size, r.to)
	n := to - from
	seen, gate := a.compressed(r.past+to), r.seq.gates.Compressed
	reads := mat.Given(gate) && seen > 0
	most := (r.past + to - 1) / cfg.Block // of the blocks before a query's own
	ranks := r.ranked && most >= cfg.TopK
	if reads || ranks {
		w.load(r, from, to, g)
		w.attendMeans(r, from, n, g, seen, reads)
	}
	for t := range n {
		for h := range a.group() {
			dst := r.head(from+t, g, h)
			if !reads {
				clear(dst)
				if mat.Given(gate) { // a gate that is not finite is seen, as in a step
					asm.Axpy(dst, mat.Row(gate, from+t)[g*a.group()+h], dst)
				}
				continue
			}
			i := t*a.group() + h
			asm.Scale(dst, mat.Row(gate, from+t)[g*a.group()+h]*inverse(w.rows.sum[i]), w.rows.o[i*a.outCols():][:len(dst)])
		}
		if r.ranked {
			at := r.past + from + t
			own := at / cfg.Block
			if own < cfg.TopK {
				pickAll(r.choice(from+t, g), own)
				continue
			}
			visible := a.compressed(at + 1)
			scores := w.score(r, t, n, visible, own)
			if w.pick(cfg, r.choice(from+t, g), own, scores) < faint {
				q := mat.Of(w.rows.q[t*a.group()*cfg.HeadDim:], a.group(), cfg.HeadDim)
				w.faint.clearUp(cfg, scores, q, 1, mat.Rows(r.meanKeys(w, g), 0, visible))
				w.pick(cfg, r.choice(from+t, g), own, scores)
			}
		}
	}
}

// head is what a query head has of dst; h counts within the heads of key head g.
func (r *nsaRun) head(row, g, h int) []float32 {
	dv := r.op.cfg.ValueDim
	return mat.Row(r.seq.dst, row)[(g*r.op.group()+h)*dv:][:dv]
}

// choice is what a query of the stretch chooses for a key head.
func (r *nsaRun) choice(row, g int) []int32 {
	return r.chosen[((row-r.from)*r.op.cfg.KVHeads+g)*r.count:][:r.count]
}

func inverse(sum float32) float32 {
	if sum == 0 {
		return 0
	}
	return 1 / sum
}

// load reads the queries of a key head, and begins their softmax.
func (w *nsaWorker) load(r *nsaRun, from, to, g int) {
	d, heads := r.op.cfg.HeadDim, r.op.group()
	w.rows.n = (to - from) * heads
	for t := range to - from {
		asm.Scale(w.rows.q[t*heads*d:][:heads*d], r.op.cfg.Scale, mat.Row(r.seq.q, from+t)[g*heads*d:][:heads*d])
	}
	w.rows.restart(&r.op.engine)
}

// restart has the rows have seen nothing.
func (x *rows) restart(e *engine) {
	for i := range x.n {
		x.top[i], x.sum[i] = -math.MaxFloat32, 0
	}
	clear(x.o[:x.n*e.outCols()])
}

// attendMeans attends from n queries to the compressed keys before seen, and with reads to
// their values. It leaves in w.s the weights, of which those of a chunk of keys are for the
// maximum in w.tops.
func (w *nsaWorker) attendMeans(r *nsaRun, from, n, g, seen int, reads bool) {
	a := r.op
	rows, cols := n*a.group(), a.outCols()
	keys, values, finite := r.meansOf(g)
	size := a.compressed(r.total())
	q, o := mat.Of(w.rows.q, rows, a.cfg.HeadDim), mat.Of(w.rows.o, rows, cols)
	for c := 0; c < seen; c += a.chunk() {
		count := min(a.chunk(), seen-c)
		x := w.means(r, c, c+count, rows)
		for k := 0; k < count && !r.group.Stopped(); k += a.sizes.Keys {
			s := w.means(r, c+k, c+k+a.tile.Panels(min(a.sizes.Keys, count-k))*a.tile.Panel(), rows)
			a.tile.Scores(s, q, keys[(c+k)*a.cfg.HeadDim:])
		}
		for i := range rows {
			if visible := a.compressed(r.past+from+i/a.group()+1) - c; visible < count {
				kernel.Hide(mat.Row(x, i)[max(visible, 0):])
			}
		}
		a.tile.Weights(x, w.rows.top[:rows], w.rows.sum[:rows], w.rows.factor[:rows])
		copy(w.tops[c/r.op.chunk()*rows:][:rows], w.rows.top)
		for k := 0; reads && k < count && !r.group.Stopped(); k += a.sizes.Keys {
			p := mat.Columns(x, k, min(a.sizes.Keys, count-k))
			factor := w.ones[:rows]
			if k == 0 {
				factor = w.rows.factor[:rows]
			}
			w.addValues(r, o, p, values, size, c+k, finite[(c+k)/a.sizes.Keys], factor)
		}
	}
}

// means are the scores of rows with some compressed keys.
func (w *nsaWorker) means(r *nsaRun, from, to, rows int) blas32.General {
	return blas32.General{Rows: rows, Cols: to - from, Stride: r.meansStride(), Data: w.s[from:]}
}

// addValues is AttentionTile.Values, for values of which some may be NaN or Inf.
func (w *nsaWorker) addValues(r *nsaRun, o, p blas32.General, v []float32, size, from int, finite bool, factor []float32) {
	if finite {
		r.op.tile.Values(o, p, v, size, from, factor)
	} else {
		tile.SparseValues(o, p, v, r.op.tile.Panel(), size, from, factor)
	}
}

// score returns the scores of the blocks before own, for query t of n, which sees that many
// compressed keys.
func (w *nsaWorker) score(r *nsaRun, t, n, visible, own int) []float32 {
	a := r.op
	heads := a.group()
	w.scores = scratch.Sized(w.scores, visible+own)
	clear(w.scores)
	for c := 0; c < visible; c += r.op.chunk() {
		x := w.means(r, c, min(c+r.op.chunk(), visible), n*heads)
		for i := t * heads; i < (t+1)*heads; i++ {
			share := inverse(w.rows.sum[i])
			if visible > r.op.chunk() { // weights of a chunk are for what was the maximum then
				x := w.rows.factor[:1]
				x[0] = w.tops[c/r.op.chunk()*n*heads+i] - w.rows.top[i]
				asm.Exp(x, x)
				share *= x[0]
			}
			asm.Axpy(w.scores[c:c+x.Cols], share, mat.Row(x, i))
		}
	}
	return a.cfg.spread(w.scores, visible, own)
}

// spread makes scores of blocks of those of compressed keys, which the first elements
// are; the rest are zeros, one for each block.
func (cfg *NSAConfig) spread(scores []float32, visible, own int) []float32 {
	if cfg.Compress == cfg.Block && cfg.Stride == cfg.Block {
		return scores[:own]
	}
	each, long := cfg.Block/cfg.Stride, cfg.Compress/cfg.Stride // strides in a block and a compressed key
	blocks := scores[visible:]
	for c, p := range scores[:visible] {
		for piece := range long {
			if b := (c + piece) / each; b < own {
				blocks[b] += p
			}
		}
	}
	return blocks
}

// pickAll sets list to all blocks up to a query's own, which are no more than it holds.
func pickAll(list []int32, own int) {
	for b := range list {
		list[b] = int32(b)
		if b > own {
			list[b] = -1
		}
	}
}

// pick sets list to the TopK blocks that a query reads, of its own and those before, by the
// scores of these. It returns the least score of those that are not chosen in any case, 1
// where there are none.
func (w *nsaWorker) pick(cfg *NSAConfig, list []int32, own int, scores []float32) (least float32) {
	local := own - cfg.Local + 1
	some := scores[cfg.Keep:local]
	w.best = topk.Select(w.best, some, cfg.TopK-cfg.Keep-cfg.Local)
	least = 1
	if n := len(w.best); n > 0 {
		least = some[w.best[n-1]]
	}
	slices.Sort(w.best)
	n := 0
	for b := range cfg.Keep {
		list[n] = int32(b)
		n++
	}
	for _, b := range w.best {
		list[n] = b + int32(cfg.Keep)
		n++
	}
	for b := local; b <= own; b++ {
		list[n] = int32(b)
		n++
	}
	for ; n < len(list); n++ { // a step's list is as long as another's of its round
		list[n] = -1
	}
	return least
}
