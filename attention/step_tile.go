package attention

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/tile"
)

// stepWork is what a worker needs for a split.
type stepWork struct {
	d       *stepRun
	j       *job
	heads   [2]int    // from, to: the key heads of the task
	pieces  []piece   // of the present tile
	from    []int     // [pieces][queries], the first key of a piece that a query sees
	to      []int     // [pieces][queries], the one after the last
	s       []float32 // [rows of the task][keys of a tile + tile.Pad], scores
	factor  []float32 // [rows of the task], what a tile multiplies o by before it adds
	ones    []float32 // [rows of the task]
	parts   []int     // [splits of a row], where each is, in rows of stepRun.o
	factors []float32 // [splits of a row], exp(top - the largest top)
	sums    []float32 // [splits of a row]
	wide    []float32 // [keys of a tile][kCols or vCols], float32 copies; one row where there are none
	int8    []float32 // [2][rows of a head][int8Keys], scores of parts, and of keys that stand turned
	mass    []float32 // [keys of a tile], weight that one head gave
	at      []int64   // [keys of a piece], positions of the tree's nodes
	exp2    [2]float32

	integers integerWork

	gathered piece     // short pieces of the tile, one after the other
	rooms    [4]*block // of each format, where they are put
	list     []int64   // positions of what is gathered
}

func (d *stepRun) stepStride() int { return d.op.sizes.StepTile + tile.Pad }

func (w *stepWork) reserveStep(d *stepRun) {
	w.d = d
	rows, splits, all, pieces, queries := 0, 0, 0, 0, 0
	for i := range d.jobs {
		j := &d.jobs[i]
		if j.source == 0 {
			all = 0
		}
		all += j.splits
		rows, splits = max(rows, j.queries()*d.op.cfg.Heads), max(splits, all)
		pieces, queries = max(pieces, min(j.spans[1]-j.spans[0]+1, d.op.sizes.StepTile)), max(queries, j.queries())
	}
	w.pieces = slices.Grow(w.pieces[:0], pieces)
	w.from, w.to = slices.Grow(w.from[:0], pieces*queries), slices.Grow(w.to[:0], pieces*queries)
	w.at = slices.Grow(w.at[:0], len(d.depth))
	w.s = scratch.Floats(w.s, rows*d.stepStride())
	w.parts = slices.Grow(w.parts[:0], splits)
	w.factor, w.factors, w.sums = scratch.Floats(w.factor, rows), scratch.Floats(w.factors, splits), scratch.Floats(w.sums, splits)
	for len(w.ones) < rows {
		w.ones = append(w.ones, 1)
	}
	if d.diagnosingStep() {
		w.mass = scratch.Floats(w.mass, d.op.sizes.StepTile)
	}
	w.reserveGathered()
	rowsInt8 := 0
	for i := range d.jobs {
		if j := &d.jobs[i]; j.turned || j.split > 0 || d.turnedValues {
			rowsInt8 = max(rowsInt8, d.rowsOf(j))
		}
	}
	w.int8 = scratch.Floats(w.int8, 2*int8Keys*rowsInt8)
	w.integers.reserve(d)
	rowsWide := 1 // of values that are not finite
	for i := range d.jobs {
		if d.jobs[i].wide {
			rowsWide = d.op.sizes.StepTile
		}
	}
	w.wide = scratch.Floats(w.wide, rowsWide*max(d.kCols(), d.vCols()))
}

// takeTask readies the worker for a task and returns the split that it is of.
func (w *stepWork) takeTask(d *stepRun, task int) (split int) {
	j := &d.jobs[parallel.Find(len(d.jobs), task, func(i int) int { return d.jobs[i].task })]
	n := (task - j.task) % j.ranges
	w.j, w.heads = j, [2]int{n * j.heads / j.ranges, (n + 1) * j.heads / j.ranges}
	return (task - j.task) / j.ranges
}

// splitTask does one split for a range of heads.
func (d *stepRun) splitTask(worker, task int) {
	w := &d.work[worker]
	split := w.takeTask(d, task)
	w.split(split, false)
	// A sum that is not finite may be so by values without weight.
	for h, end := w.heads[0], w.heads[1]; h < end; h++ {
		if _, _, o := w.results(split, h, h+1); !tile.Finite(o) {
			w.heads = [2]int{h, h + 1}
			w.split(split, true)
		}
	}
}

// results returns where the results of a split for some key heads wait.
func (w *stepWork) results(split, from, to int) (top, sum, o []float32) {
	d, cfg := w.d, &w.d.op.cfg
	rows := w.headRows()
	at := w.j.part + split*w.j.queries()*cfg.Heads + from*rows
	n := (to - from) * rows
	return d.top[at:][:n], d.sum[at:][:n], d.o[at*d.oCols():][:n*d.oCols()]
}

// headRows is how many rows read a key head.
func (w *stepWork) headRows() int { return w.d.rowsOf(w.j) }

func (w *stepWork) split(split int, careful bool) {
	top, sum, o := w.results(split, w.heads[0], w.heads[1])
	for i := range top {
		top[i], sum[i] = -math.MaxFloat32, 0
	}
	clear(o)
	from, to := w.keysOf(split)
	for t := from; t < to; t += w.d.op.sizes.StepTile {
		end := min(t+w.d.op.sizes.StepTile, to)
		if w.cut(t, end) {
			w.tile(split, end-t, careful)
		}
	}
}

// keysOf returns the keys of a split.
func (w *stepWork) keysOf(split int) (from, to int) {
	from = split * w.j.size
	return from, min(from+w.j.size, w.j.keys)
}

// products makes the products of the queries with the keys of the pieces.
func (w *stepWork) products() {
	w.each((*block).keyStore, w.headScores)
}

// tile adds the keys of the pieces, keys of them.
func (w *stepWork) tile(split, keys int, careful bool) {
	a, rows := w.d.op, w.headRows()
	w.products()
	for h := w.heads[0]; h < w.heads[1]; h++ {
		s := w.scoresOf(h, 0, keys)
		top, sum, _ := w.results(split, h, h+1)
		factor := w.factor[(h-w.heads[0])*rows:][:rows]
		w.adjust(s, h)
		if a.cfg.ReLU {
			rectify(s, factor)
		} else {
			a.tile.Weights(s, top, sum, factor)
		}
		if w.j.integer {
			w.roundWeights(s, h, careful)
		}
	}
	w.each((*block).valueStore, func(p *piece, h, row, n, at int, next *byte) { w.headValues(p, split, h, row, n, at, next, careful) })
	for h := w.heads[0]; h < w.heads[1] && w.j.integer; h++ {
		w.addIntegers(split, h, careful)
	}
}

// scoresOf is the scores of one key head's rows from key at of the tile on.
func (w *stepWork) scoresOf(h, at, n int) blas32.General {
	rows, stride := w.headRows(), w.d.stepStride()
	return blas32.General{Rows: rows, Cols: n, Stride: stride, Data: w.s[(h-w.heads[0])*rows*stride+at:]}
}

// each calls f for the rows of the pieces a few at a time, for all heads before the
// next few: in the order in which they stand in memory. next is what comes after,
// a share for each head, where all heads are read. Short pieces are gathered first.
func (w *stepWork) each(of func(*block) *store, f func(p *piece, h, row, n, at int, next *byte)) {
	for i := 0; i < len(w.pieces) && !w.d.group.Stopped(); {
		p := &w.pieces[i]
		s := of(p.b)
		few := w.d.few(s)
		if pieces, rows := w.shortPieces(i, few); pieces > 1 {
			w.gather(w.pieces[i:][:pieces], of)
			for h := w.heads[0]; h < w.heads[1]; h++ {
				f(&w.gathered, h, 0, rows, p.tile, nil)
			}
			i += pieces
			continue
		}
		for at := 0; at < p.n && !w.d.group.Stopped(); at += few {
			n := min(few, p.n-at)
			row := p.row + at
			for h := w.heads[0]; h < w.heads[1]; h++ {
				f(p, h, row, n, p.tile+at, w.next(p, of, h, row, n))
			}
		}
		i++
	}
}

// few is how many rows of keys or values are read for one head before the next: whole blocks of
// those that kernels take together, where it is as many.
func (d *stepRun) few(s *store) int {
	n := d.op.sizes.StepBytes / int(max(1, tokenBytes(s.format, s.heads, s.dim, 0)))
	if n >= 16 {
		return n / 16 * 16
	}
	return max(4, n/4*4)
}

// next is the address that a head prefetches while it reads n rows: its share of as many
// rows after them, or at the beginning of the next span, where all heads are read.
func (w *stepWork) next(p *piece, of func(*block) *store, h, row, n int) *byte {
	s, d := of(p.b), w.d
	row += n
	if i := p.index + 1; row+n > s.tokens && i < w.j.spans[1] {
		s, row = of(d.spans[i].b), d.spans[i].row
	}
	if w.heads[1]-w.heads[0] != s.heads || row+n > s.tokens || s.stride != s.heads*s.dim {
		return nil
	}
	all := s.head(0, row, n, s.dim)
	return all.At(h * n * s.dim)
}

// copied returns the rows of one head as float32, filled up with zeros.
func (w *stepWork) copied(s *store, h, row, n, width, cols int) blas32.General {
	m := blas32.General{Rows: n, Cols: width, Stride: cols, Data: w.wide[:n*cols]}
	if cols > width {
		clear(m.Data)
	}
	s.widen(m, h, row)
	return m
}

func strided(m blas32.General) kernel.Strided {
	return kernel.Strided{Rows: m.Rows, Cols: m.Stride, Stride: m.Stride, Float32: m.Data}
}

// turnKeys rotates copied keys, those of a piece from token i on.
func (w *stepWork) turnKeys(k blas32.General, p *piece, i int) {
	j, d := w.j, w.d
	var err error
	if node := p.at(i) - j.base; p.list != nil {
		err = j.rot.RotateAt(k, p.list[i:][:k.Rows])
	} else if d.call.Tree != nil && node >= 0 {
		w.at = w.at[:0]
		for _, depth := range d.depth[node : node+k.Rows] {
			w.at = append(w.at, int64(j.base+depth))
		}
		err = j.rot.RotateAt(k, w.at)
	} else {
		err = j.rot.Rotate(k, int64(p.at(i)))
	}
	if err != nil {
		panic(err) // of what NewState should have refused
	}
}

func (w *stepWork) headScores(p *piece, h, row, n, at int, next *byte) {
	d, j, dim := w.d, w.j, w.d.op.cfg.HeadDim
	s, rows := w.scoresOf(h, at, n), w.headRows()
	width := rows * d.qCols(j)
	k := &p.b.k
	if j.integer {
		w.integerScores(s, k, h, row, next)
		return
	}
	q := d.q[j.q+h*width:][:width]
	if j.wide {
		m := w.copied(k, h, row, n, dim, d.kCols())
		if j.rot != nil {
			w.turnKeys(m, p, row-p.row)
		}
		d.op.stepTile.Scores(s, q, strided(m), nil)
		return
	}
	if k.format == asm.Int8 {
		w.int8Scores(s, q, k, h, row, next)
		return
	}
	d.op.stepTile.Scores(s, q, k.head(h, row, n, dim), next)
}

func (w *stepWork) headValues(p *piece, split, h, row, n, at int, next *byte, careful bool) {
	d, j, dim := w.d, w.j, w.d.op.cfg.ValueDim
	if j.integer {
		w.integerValues(p.b.valueStore(), h, row, n, at, next)
		return
	}
	weights, rows, cols := w.scoresOf(h, at, n), w.headRows(), d.vCols()
	_, _, out := w.results(split, h, h+1)
	o := blas32.General{Rows: rows, Cols: cols, Stride: d.oCols(), Data: out}
	var turned blas32.General
	factor := w.ones[:rows]
	if at == 0 {
		factor = w.factor[(h-w.heads[0])*rows:][:rows]
	}
	if d.turnedValues {
		turned = blas32.General{Rows: rows, Cols: cols, Stride: d.oCols(), Data: out[cols:]}
		for i := 0; i < rows && at == 0; i++ {
			x := mat.Row(turned, i)
			asm.Scale(x, factor[i], x)
		}
	}
	v := p.b.valueStore()
	switch {
	case careful:
		w.sparse(o, weights, v, h, row, factor)
	case j.wide:
		d.op.stepTile.Values(o, weights, strided(w.copied(v, h, row, n, dim, cols)), factor, nil)
	case v.format == asm.Int8:
		w.int8Values(o, turned, weights, v, h, row, factor, next)
	default:
		d.op.stepTile.Values(o, weights, v.head(h, row, n, dim), factor, next)
	}
}

// sparse is values where some are NaN or Inf: what has no weight must not count.
func (w *stepWork) sparse(o, p blas32.General, v *store, h, row int, factor []float32) {
	dim := w.d.op.cfg.ValueDim
	for i := range o.Rows {
		x := mat.Row(o, i)
		asm.Scale(x, factor[i], x)
	}
	one := blas32.General{Rows: 1, Cols: dim, Stride: dim, Data: w.wide[:dim]}
	for k := range p.Cols {
		v.widen(one, h, row+k)
		for i := range o.Rows {
			if x := p.Data[i*p.Stride+k]; x != 0 {
				asm.Axpy(mat.Part(o, i, 0, dim), x, one.Data)
			}
		}
	}
}
