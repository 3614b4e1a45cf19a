package attention

import (
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// Steps over states of Int8 with Config.Int8Products. Queries are rounded once for a step. The
// weights of a tile are rounded together, each row's by its largest, and its sums of weighted
// values are those of integers until the tile ends: nothing depends on the pieces that a tile
// has. Sums of weights, and so log-sum-exps, are those of weights as they were: rounding to the
// nearest is off either way alike, and what a state's parts add up to stays exact.

// integerWork is what a worker needs for it.
type integerWork struct {
	heads  []integerHead // of the task
	scales []float32     // [keys of a tile], of one head's values
	some   []float32     // [2][rows of a head][int8Keys], scores of a part, or of keys that stand turned
}

// integerHead is what the values of a tile are weighted with, and their sums.
type integerHead struct {
	plain, turned integerSums
	mixed         bool // some values stand turned
}

type integerSums struct {
	weights kernel.IntegerWeights
	sums    []int32 // [rows][kernel.IntegerColumns(ValueDim)]
}

// takesIntegers tells whether states of Int8 that are read where they stand are multiplied as
// integers.
func (a *Attention) takesIntegers() bool {
	return a.integer && a.cfg.HeadDim <= kernel.MaxShadowDim && a.cfg.HeadDim%kernel.IntegerUnit == 0 && a.cfg.ValueDim%kernel.IntegerUnit == 0
}

// integerBytes is what rounding takes at the most of a step's memory, of rows of queries and a
// number of workers; as much more where rows stand turned.
func (a *Attention) integerBytes(rows int64, workers int) int64 {
	if !a.takesIntegers() {
		return 0
	}
	const query, head, row = 256, 128, 64 // of the structures
	parts, wide := int64(2*a.cfg.KVHeads), int64(a.cfg.HeadDim+2*kernel.IntegerColumns(1))
	weights := int64(2*kernel.IntegerKeys + row + 4*kernel.IntegerColumns(a.cfg.ValueDim))
	some := 2 * int8Keys * rows / int64(a.cfg.KVHeads)
	return rows*(4*wide+2*row) + parts*query + int64(workers)*(rows*weights+int64(a.cfg.KVHeads)*2*head+4*int64(a.sizes.StepTile)+4*some)
}

// integerQueries is how many packed matrices of queries a key head has.
func (j *job) integerQueries() int {
	n := 1
	if j.split > 0 {
		n = 2
	}
	if j.turned {
		n *= 2
	}
	return n
}

// queriesOf returns those of a key head: of its parts, as they are or turned.
func (d *stepRun) queriesOf(j *job, h int, turned bool) []kernel.IntegerQueries {
	n := j.integerQueries()
	list := d.integers[j.integers+h*n:][:n]
	switch {
	case !j.turned:
		return list
	case turned:
		return list[n/2:]
	}
	return list[:n/2]
}

func (d *stepRun) reserveIntegers(n int) {
	d.integers = slices.Grow(d.integers, max(0, n-len(d.integers)))[:max(n, len(d.integers))] // with what memory they have
}

// packIntegers rounds the queries that read a key head; it turns m.
func (d *stepRun) packIntegers(j *job, h int, m blas32.General) {
	for _, turned := range [...]bool{false, true} {
		if turned && !j.turned {
			break
		}
		if turned {
			j.turnQueries(m)
		}
		list := d.queriesOf(j, h, turned)
		if j.split > 0 {
			d.op.integers.Pack(&list[0], mat.Columns(m, 0, j.split))
		}
		d.op.integers.Pack(&list[len(list)-1], mat.Columns(m, j.split, m.Cols-j.split))
	}
}

// reserve makes room for the jobs whose products are of integers.
func (w *integerWork) reserve(d *stepRun) {
	rows, heads, some := 0, 0, 0
	for i := range d.jobs {
		j := &d.jobs[i]
		if !j.integer {
			continue
		}
		rows, heads = max(rows, d.rowsOf(j)), max(heads, j.heads)
		if j.turned || j.split > 0 {
			some = max(some, d.rowsOf(j))
		}
	}
	if heads == 0 {
		return
	}
	for len(w.heads) < heads {
		w.heads = append(w.heads, integerHead{})
	}
	for h := range w.heads {
		w.heads[h].plain.reserveRows(rows, d.op.cfg.ValueDim)
		if d.turnedValues {
			w.heads[h].turned.reserveRows(rows, d.op.cfg.ValueDim)
		}
	}
	w.scales = scratch.Floats(w.scales, d.op.sizes.StepTile)
	w.some = scratch.Floats(w.some, 2*int8Keys*some)
}

func (x *integerSums) reserveRows(rows, cols int) {
	x.weights.Reserve(rows)
	x.sums = scratch.Sized(x.sums, rows*kernel.IntegerColumns(cols))
}

// integerScores is headScores of products of integers.
func (w *stepWork) integerScores(s blas32.General, k *store, h, row int, next *byte) {
	d, tile := w.d, w.d.op.integers
	for p := range k.parts() {
		from, to := k.part(p)
		keys, scales := k.head(h, row, s.Cols, k.dim).Columns(from, to), k.scales(p, h, row, s.Cols)
		count := 0
		if k.turned {
			count = countTurned(scales)
		}
		plain := &d.queriesOf(w.j, h, false)[p]
		switch {
		case p == 0 && count == 0:
			tile.Scores(s, plain, keys, scales, next)
		case p == 0 && count == s.Cols:
			tile.Scores(s, &d.queriesOf(w.j, h, true)[p], keys, scales, next)
		default:
			w.mixedIntegers(s, p, h, keys, scales, count)
		}
	}
}

// mixedIntegers gives keys of which count stand turned their scores, or adds those of a further
// part.
func (w *stepWork) mixedIntegers(s blas32.General, p, h int, keys kernel.Strided, scales []float32, count int) {
	d, tile := w.d, w.d.op.integers
	for at := 0; at < s.Cols; at += int8Keys {
		n := min(int8Keys, s.Cols-at)
		some, scales := keys.From(at), scales[at:][:n]
		some.Rows = n
		x, y := mat.Of(w.integers.some[:s.Rows*n], s.Rows, n), mat.Of(w.integers.some[s.Rows*n:][:s.Rows*n], s.Rows, n)
		tile.Scores(x, &d.queriesOf(w.j, h, false)[p], some, scales, nil)
		if count > 0 {
			tile.Scores(y, &d.queriesOf(w.j, h, true)[p], some, scales, nil)
			takeTurned(x, y, scales)
		}
		for i := range s.Rows {
			to, from := mat.Part(s, i, at, n), mat.Row(x, i)
			if p > 0 {
				asm.Add(to, to, from)
			} else {
				copy(to, from)
			}
		}
	}
}

// roundWeights rounds the weights of one key head, times the scales of the values. With careful,
// values that are not finite are left to addIntegers.
func (w *stepWork) roundWeights(s blas32.General, h int, careful bool) {
	head := &w.integers.heads[h-w.heads[0]]
	scales, turned := w.valueScales(h, s.Cols, careful), 0
	if w.d.turnedValues {
		turned = countTurned(scales)
	}
	head.mixed = turned > 0
	head.plain.begin(w, s, scales, false)
	if head.mixed {
		head.turned.begin(w, s, scales, true)
	}
}

// valueScales are those of a tile's values, 0 in place of what is not finite with careful.
func (w *stepWork) valueScales(h, n int, careful bool) []float32 {
	if p := &w.pieces[0]; p.n == n && !careful {
		return p.b.valueStore().scales(0, h, p.row, n)
	}
	scales := w.integers.scales[:n]
	for i := range w.pieces {
		p := &w.pieces[i]
		copy(scales[p.tile:], p.b.valueStore().scales(0, h, p.row, p.n))
	}
	for i, x := range scales {
		if careful && !finite(x) {
			scales[i] = 0
		}
	}
	return scales
}

// begin makes the weights, and sums of nothing.
func (x *integerSums) begin(w *stepWork, s blas32.General, scales []float32, turned bool) {
	w.d.op.integers.Weigh(&x.weights, s, scales, turned)
	x.sums = x.sums[:s.Rows*kernel.IntegerColumns(w.d.op.cfg.ValueDim)]
	clear(x.sums)
}

// integerValues is headValues of products of integers.
func (w *stepWork) integerValues(v *store, h, row, n, at int, next *byte) {
	tile, head := w.d.op.integers, &w.integers.heads[h-w.heads[0]]
	values := v.head(h, row, n, w.d.op.cfg.ValueDim)
	tile.Values(head.plain.sums, &head.plain.weights, at, values, next)
	if head.mixed {
		tile.Values(head.turned.sums, &head.turned.weights, at, values, nil)
	}
}

// addIntegers adds the sums of a tile for one key head.
func (w *stepWork) addIntegers(split, h int, careful bool) {
	d, tile, head := w.d, w.d.op.integers, &w.integers.heads[h-w.heads[0]]
	rows, cols := w.headRows(), d.op.cfg.ValueDim
	factor := w.factor[(h-w.heads[0])*rows:][:rows]
	_, _, out := w.results(split, h, h+1)
	o := blas32.General{Rows: rows, Cols: cols, Stride: d.oCols(), Data: out}
	tile.Add(o, &head.plain.weights, head.plain.sums, factor)
	if d.turnedValues {
		turned := blas32.General{Rows: rows, Cols: cols, Stride: d.oCols(), Data: out[d.vCols():]}
		if head.mixed {
			tile.Add(turned, &head.turned.weights, head.turned.sums, factor)
		} else {
			for i := range rows {
				x := mat.Row(turned, i)
				asm.Scale(x, factor[i], x)
			}
		}
	}
	if careful {
		w.addNotFinite(o, h)
	}
}

// addNotFinite adds the values that are not finite to the rows that give them weight.
func (w *stepWork) addNotFinite(o blas32.General, h int) {
	for n := range w.pieces {
		p := &w.pieces[n]
		v := p.b.valueStore()
		for k, scale := range v.scales(0, h, p.row, p.n) {
			if finite(scale) {
				continue
			}
			weights := w.scoresOf(h, p.tile+k, 1)
			one := blas32.General{Rows: 1, Cols: o.Cols, Stride: o.Cols, Data: w.wide[:o.Cols]}
			v.widen(one, h, p.row+k)
			for i := range o.Rows {
				if x := mat.Row(weights, i)[0]; x != 0 {
					asm.Axpy(mat.Row(o, i), x, one.Data)
				}
			}
		}
	}
}
