package attention

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// The second pass: with each query's log-sum-exp known, weights are made again,
// tile by tile, and summed over queries (mass) or over keys (entropy). A task is
// a block of heads of one sequence, so that sums have one order.

// massWork is what a worker needs for it.
type massWork struct {
	packed  []float32 // one slot: a tile of keys
	part    []float32 // [heads of the block][keys of a tile], of one tile of rows
	total   []float64 // the same, of all rows
	entropy []float32 // [rows of the block], -sum p ln p so far
}

func (x *massWork) reserveMass(a *Attention, heads, rows int) {
	x.packed = scratch.Floats(x.packed, a.slot().size)
	x.part = scratch.Floats(x.part, heads*a.sizes.Keys)
	if cap(x.total) < len(x.part) {
		x.total = make([]float64, len(x.part))
	}
	x.total = x.total[:len(x.part)]
	x.entropy = scratch.Floats(x.entropy, rows)
}

// diagnosing tells whether weights are asked for.
func (r *forwardRun) diagnosing() bool {
	return r.call.Mass.Rows > 0 || r.call.Entropy.Rows > 0 || r.call.Stats != nil
}

// diagnose fills Mass, Entropy and Stats.
func (r *forwardRun) diagnose(ctx context.Context) error {
	if !r.diagnosing() {
		return ctx.Err()
	}
	a, c := r.op, &r.call
	h := a.cfg.Heads
	r.massOut, r.entropyOut = c.Mass, c.Entropy
	if c.Stats != nil {
		own := func(old *[]float32, rows int) blas32.General {
			*old = scratch.Floats(*old, rows*h)
			return blas32.General{Rows: rows, Cols: h, Stride: h, Data: *old}
		}
		if c.Mass.Rows == 0 {
			r.massOut = own(&r.masses, r.src[0].rows)
		}
		if c.Entropy.Rows == 0 {
			r.entropyOut = own(&r.entropies, c.Q.Rows)
		}
	}
	r.items = r.items[:0]
	for b := range len(r.qOffsets) - 1 {
		for set := range r.sets() {
			r.items = append(r.items, item{seq: b, set: set, sets: 1, from: r.qOffsets[b], to: r.qOffsets[b+1]})
		}
	}
	workers := a.workers(c.Workers, int64(min(float64(c.Q.Rows)*float64(r.src[0].rows)*float64(h*a.cfg.HeadDim), math.MaxInt32)))
	r.reserveWorkers(workers)
	rows := 0
	for i := range r.items {
		rows = max(rows, r.itemRows(&r.items[i]))
	}
	for i := range workers {
		r.work[i].second.reserveMass(a, r.blockHeads(), rows)
	}
	if err := r.group.RunAs(ctx, "attention", workers, len(r.items)*r.blocks(), r.mass); err != nil {
		return err
	}
	if c.Stats != nil {
		c.Stats.takeRun(r)
	}
	return nil
}

// itemMassTask does one block of heads of a sequence.
func (r *forwardRun) itemMassTask(worker, task int) {
	w, a := &r.work[worker], r.op
	it := &r.items[task/r.blocks()]
	block, heads := task%r.blocks(), r.blockHeads()
	x := &w.second
	x.entropy = x.entropy[:r.itemRows(it)]
	clear(x.entropy)
	start, end := r.src[0].sequence(it.seq)
	head := it.set*(a.cfg.Heads/r.sets()) + block*heads
	kvHead := head / (a.cfg.Heads / a.cfg.KVHeads)
	at := a.slot()
	for from := 0; from < end-start; from += a.sizes.Keys {
		t := keyTile{from: from, to: min(from+a.sizes.Keys, end-start)}
		t.info = r.src[0].packTile(a, kvHead, start+t.from, start+t.to, x.packed, &w.wide)
		t.k, t.v, t.w = x.packed[at.k:at.v], x.packed[at.v:at.w], x.packed[at.w:]
		clear(x.total)
		for n := range r.tileOf(r.itemRows(it)) {
			if r.group.Stopped() {
				return
			}
			w.beginTile(r, it, block, n)
			clear(x.part)
			height := a.height()
			for i := 0; i < w.rows && !r.group.Stopped(); i += height {
				w.massStrip(&t, i, min(height, w.rows-i))
			}
			for j, m := range x.part {
				x.total[j] += float64(m)
			}
		}
		if r.massOut.Rows > 0 {
			for i := range heads {
				for j := range t.to - t.from {
					mat.Row(r.massOut, start+t.from+j)[head+i] = float32(x.total[i*a.sizes.Keys+j])
				}
			}
		}
	}
	if r.entropyOut.Rows > 0 {
		for i, e := range x.entropy {
			mat.Row(r.entropyOut, it.from+i/heads)[head+i%heads] = e
		}
	}
}

// massStrip adds the weights of rows i ... i+n.
func (w *forwardWork) massStrip(t *keyTile, i, n int) {
	r, a, x := w.r, w.r.op, &w.second
	for j := range n {
		w.top[i+j] = -math.MaxFloat32
	}
	s, from, to, _ := w.looked(t, i, n)
	if from >= to {
		return
	}
	for j := range n {
		token, head := w.rowToken(i + j)
		l, h := w.seenPart(t, i+j, from, to)
		row := mat.Part(s, j, l, h-l)
		part := x.part[(head-w.head)*a.sizes.Keys+from-t.from:][l:h]
		if a.cfg.ReLU {
			factor, _ := w.denominator(i+j, head)
			for k, p := range row {
				part[k] += float32(max(p, 0) * factor) // max keeps NaN
			}
			continue
		}
		lse := mat.Row(r.lse, token)[head]
		if !math.IsInf(float64(lse), -1) {
			x.entropy[w.row+i+j] -= a.tile.Mass(part, row, lse)
		}
	}
}
