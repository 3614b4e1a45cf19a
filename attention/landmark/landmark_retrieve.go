package landmark

import (
	"context"
	"math"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/tile"
	"github.com/subquad/subquad/internal/topk"
)

// retrieval is what queries of Landmark.Step read of whole blocks.
//
// A block's keys are held rotated as if it began at position 0. To place it at
// another multiple of the period, its slot, the query is rotated back by that
// much instead: products depend on the difference alone. So there is a version
// of the queries for each slot.
type retrieval struct {
	slots     []blas32.General // the queries, [queries, Heads*HeadDim], seen from a block in each slot
	data      [][]float32      // their memory
	landmarks blas32.General   // keys of the blocks' landmarks, where they stand: [blocks, KVHeads*HeadDim]
	first     int              // where the oldest block begins in the state's blocks
	chosen    []int32          // [queries, Heads, take], oldest first
	take      int              // blocks that a query reads
	blocks    int              // that the state holds
}

// chooser picks the best blocks.
type chooser struct {
	weights, largest []float32 // [blocks]: of one query and head, and the largest of several
	best             []int32   // blocks
}

// slot returns where a block stands: when landmarks are weighed, and, chosen as
// the rank-th oldest, when it is read.
func (r *retrieval) slot(b, rank int, read bool) int {
	latest := b >= r.blocks-r.take
	switch {
	case r.blocks <= r.take:
		return b // all are read, each at its own place
	case read && latest:
		return rank + 1
	case read:
		return rank
	case latest:
		return b - (r.blocks - r.take) + 1
	}
	return 0
}

// choose finds the blocks that each query reads.
func (r *run) choose(ctx context.Context, workers int) error {
	x, s, cfg := &r.retrieval, r.state, &r.op.cfg
	x.blocks, x.first = s.Blocks(), s.blocks.Len()-s.blocks.Held()
	x.landmarks, _ = held(s.landmarks)
	x.take = min(x.blocks, cfg.TopK)
	x.slots = x.slots[:0]
	if x.blocks == 0 {
		return nil
	}
	slots := x.take
	if x.blocks > x.take {
		slots++
	}
	for len(x.data) < slots {
		x.data = append(x.data, nil)
	}
	for i := range slots {
		if r.op.turn == nil {
			x.slots = append(x.slots, r.q)
			continue
		}
		x.data[i] = scratch.Floats(x.data[i], r.q.Rows*r.q.Cols)
		m, err := rotated(ctx, r.op.turn, x.data[i], r.call.q, s.start()-int64(i*r.op.period()))
		if err != nil {
			return err
		}
		x.slots = append(x.slots, m)
	}
	n := r.q.Rows * cfg.Heads * x.take
	if cap(x.chosen) < n {
		x.chosen = make([]int32, n)
	}
	x.chosen = x.chosen[:n]
	tasks := r.q.Rows
	if cfg.Selection == MaxOverTokens {
		tasks = cfg.Heads
	}
	for i := range r.work[:workers] {
		c := &r.work[i].chooser
		c.weights, c.largest = scratch.Floats(c.weights, x.blocks), scratch.Floats(c.largest, x.blocks)
		if cap(c.best) < x.take {
			c.best = make([]int32, 0, x.take)
		}
	}
	if err := r.group.RunAs(ctx, "landmark", workers, tasks, r.retrieve); err != nil {
		return err
	}
	return nil
}

// retrieveTask chooses for one query or, with MaxOverTokens, for one head.
func (r *run) retrieveTask(worker, task int) {
	x, cfg := &r.retrieval, &r.op.cfg
	c := &r.work[worker].chooser
	tokens, heads := [2]int{task, task + 1}, [2]int{0, cfg.Heads}
	if cfg.Selection == MaxOverTokens {
		tokens, heads = [2]int{0, r.q.Rows}, [2]int{task, task + 1}
	}
	for b := range c.largest {
		c.largest[b] = tile.NegInf
	}
	for i := tokens[0]; i < tokens[1]; i++ {
		for h := heads[0]; h < heads[1]; h++ {
			if x.blocks > x.take {
				c.weigh(r, i, h)
			}
			if cfg.Selection == PerTokenAndHead {
				c.pickBest(c.weights, x.take)
				copy(x.chosenBy(i, h, cfg.Heads), c.best)
				continue
			}
			for b, w := range c.weights {
				c.largest[b] = max(c.largest[b], w)
			}
		}
	}
	if cfg.Selection == PerTokenAndHead {
		return
	}
	c.pickBest(c.largest, x.take)
	for i := tokens[0]; i < tokens[1]; i++ {
		for h := heads[0]; h < heads[1]; h++ {
			copy(x.chosenBy(i, h, cfg.Heads), c.best)
		}
	}
}

// chosenBy returns the choice of a query and head.
func (r *retrieval) chosenBy(i, h, heads int) []int32 { return r.chosen[(i*heads+h)*r.take:][:r.take] }

// weigh sets the weights to the softmax of a query's logits with all landmarks.
func (c *chooser) weigh(r *run, i, h int) {
	x, cfg := &r.retrieval, &r.op.cfg
	d, g := cfg.HeadDim, h/(cfg.Heads/cfg.KVHeads)
	top := tile.NegInf
	for b := range c.weights {
		q := mat.Row(x.slots[x.slot(b, 0, false)], i)[h*d:][:d]
		c.weights[b] = cfg.Scale * asm.Dot(q, mat.Part(x.landmarks, b, g*d, d))
		top = max(top, c.weights[b])
	}
	for b := range c.weights {
		c.weights[b] -= top
	}
	asm.Exp(c.weights, c.weights)
	sum := float32(0)
	for _, w := range c.weights {
		sum += w
	}
	asm.Scale(c.weights, 1/sum, c.weights)
}

// pickBest sets best to the n blocks of the largest weights, oldest first. Among
// equals the older wins; NaN loses.
func (c *chooser) pickBest(weights []float32, n int) {
	c.best = topk.Select(c.best, weights, n)
	slices.Sort(c.best)
}

// read adds to row i the blocks that its query and head have chosen.
func (w *worker) read(r *run, i, query, head int) {
	x, cfg := &r.retrieval, &r.op.cfg
	if x.blocks == 0 {
		return
	}
	d, dv, g := cfg.HeadDim, cfg.ValueDim, head/(cfg.Heads/cfg.KVHeads)
	o := w.o[i*r.op.outCols():][:dv]
	w.weights = scratch.Floats(w.weights, cfg.Block)
	for rank, b := range x.chosenBy(query, head, cfg.Heads) {
		k, v := w.blockOf(r, int(b), g)
		q := mat.Row(x.slots[x.slot(int(b), rank, true)], query)[head*d:][:d]
		top, sum := tile.NegInf, float32(0)
		for j := range w.weights {
			w.weights[j] = cfg.Scale * asm.Dot(q, mat.Row(k, j))
			top = max(top, w.weights[j])
		}
		if math.IsInf(float64(top), -1) {
			top = 0
		}
		for j := range w.weights {
			w.weights[j] -= top
		}
		asm.Exp(w.weights, w.weights)
		for _, x := range w.weights {
			sum += x
		}
		keep, share := w.join(i, cfg.Scale*asm.Dot(q, mat.Part(x.landmarks, int(b), g*d, d)), sum)
		asm.Scale(o, keep, o)
		for j, x := range w.weights {
			if x != 0 {
				asm.Axpy(o, x*share, mat.Row(v, j))
			}
		}
	}
}

// blockOf returns a block's keys [Block, HeadDim] and values [Block, ValueDim] of one key
// head: where they stand, or in float32 copies.
func (w *worker) blockOf(r *run, b, kvHead int) (k, v blas32.General) {
	cfg := &r.op.cfg
	d, dv, at := cfg.HeadDim, cfg.ValueDim, r.retrieval.first+b*cfg.Block
	g, _ := r.state.blocks.Segment(at)
	if k, v, ok := g.Float32(); ok && k.Rows >= cfg.Block {
		return mat.Columns(mat.Rows(k, 0, cfg.Block), kvHead*d, d), mat.Columns(mat.Rows(v, 0, cfg.Block), kvHead*dv, dv)
	}
	w.wide = scratch.Floats(w.wide, cfg.Block*(d+dv))
	k, v = mat.Of(w.wide, cfg.Block, d), mat.Of(w.wide[cfg.Block*d:], cfg.Block, dv)
	for from := 0; from < cfg.Block; {
		g, _ := r.state.blocks.Segment(at + from)
		to := min(from+g.Tokens, cfg.Block)
		err := g.Keys(mat.Rows(k, from, to), kvHead, 0)
		if err == nil {
			err = g.Values(mat.Rows(v, from, to), kvHead, 0)
		}
		if err != nil {
			panic(err) // the block is not held
		}
		from = to
	}
	return k, v
}
