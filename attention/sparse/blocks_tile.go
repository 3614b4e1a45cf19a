package sparse

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/tile"
)

// engine attends from rows of queries to blocks of packed keys, for the operators of this
// package. A block is one tile of the kernel or, where it is large, several.
type engine struct {
	tile          kernel.AttentionTile
	sizes         tile.Sizes
	dim, valueDim int
	scale         float32
	block         int // keys of a block
	keys          int // keys of a tile, at the most
	tiles         int // tiles of a block
	perRound      int // blocks that are packed at a time
	group         int // tiles that share a softmax step, at the most
	slot          slot
}

// slot is how a tile of one head is packed: keys, values, log-weights.
type slot struct {
	v, w int // where values and log-weights begin
	size int
}

// newEngine returns the engine of an operator for blocks of so many keys.
func newEngine(cfg *attention.Config, block int) engine {
	t := kernel.NewAttentionTile()
	e := engine{tile: t, sizes: tile.New(t), dim: cfg.HeadDim, valueDim: cfg.ValueDim, scale: cfg.Scale, block: block, group: 1}
	e.keys = min(block, e.sizes.Keys)
	e.tiles = (block + e.keys - 1) / e.keys
	// Sums depend on perRound where tiles share steps, which are whole panels; others are
	// packed into whole panels, and count as these.
	e.perRound = max(1, 4*e.sizes.Block/(e.tiles*t.Panels(e.keys)*t.Panel()))
	if block%t.Panel() == 0 && e.tiles == 1 {
		e.group = max(1, e.sizes.Keys/block)
	}
	e.slot.v = t.Panels(e.keys) * t.Panel() * e.dim
	e.slot.w = e.slot.v + e.outCols()*e.keys
	e.slot.size = e.slot.w + (e.keys+15)/16*16
	return e
}

// outCols is the width of a row of sums of values: that of whole panels.
func (e *engine) outCols() int { return e.tile.Panels(e.valueDim) * e.tile.Panel() }

// scoreStride is from row to row of scores.
func (e *engine) scoreStride() int { return e.sizes.Keys + tile.Pad }

// packTile packs keys and values of one head, no more than a tile, into a slot, and tells
// whether values are finite.
func (e *engine) packTile(dst []float32, k, v blas32.General) (finite bool) {
	kernel.PrefetchRows(k)
	kernel.PrefetchRows(v)
	e.tile.PackKeys(dst[:e.slot.v], 0, k)
	e.tile.PackValues(dst[e.slot.v:e.slot.w], e.keys, 0, v)
	finite = true
	for c, w := 0, e.tile.Panel(); c < e.slot.w-e.slot.v; c += e.keys * w {
		finite = finite && tile.Finite(dst[e.slot.v+c:][:v.Rows*w])
	}
	return finite
}

// packed is a packed tile.
type packed struct {
	data     []float32 // a slot
	keys     int
	start    int // position of the first key
	finite   bool
	weighted bool
}

// rows are queries of one head that are on their way through the keys.
type rows struct {
	n                int
	q                []float32 // [n][dim], times the scale
	o                []float32 // [n][outCols], sums of weighted values
	top, sum, factor []float32 // [n], largest logit so far, sum of exp(logit - top), and what o is multiplied by
}

// reserve makes room for n rows.
func (x *rows) reserve(e *engine, n int) {
	if n <= len(x.top) {
		return
	}
	x.q, x.o = scratch.Floats(nil, n*e.dim), scratch.Floats(nil, n*e.outCols())
	x.top, x.sum, x.factor = make([]float32, n), make([]float32, n), make([]float32, n)
}

// begin makes the rows those of queries q, which have seen nothing.
func (x *rows) begin(e *engine, q blas32.General) {
	x.n = q.Rows
	for i := range x.n {
		x.factor[i] = e.scale
		x.top[i], x.sum[i] = -math.MaxFloat32, 0
	}
	kernel.PrefetchRows(q)
	kernel.ScaleRows(mat.Of(x.q, q.Rows, q.Cols), x.factor[:x.n], q)
	clear(x.o[:x.n*e.outCols()])
}

// end divides by the sums, into dst, and writes the log-sum-exps where they are asked for:
// lse is a column, or nothing.
func (x *rows) end(e *engine, dst, lse blas32.General) {
	for i := range x.n {
		x.factor[i] = 0
		l := tile.NegInf
		if sum := x.sum[i]; sum != 0 {
			x.factor[i] = 1 / sum
			if lse.Rows > 0 {
				l = float32(float64(x.top[i]) + math.Log(float64(sum)))
			}
		}
		if lse.Rows > 0 {
			mat.Row(lse, i)[0] = l
		}
	}
	cols := e.outCols()
	kernel.ScaleRows(dst, x.factor[:x.n], blas32.General{Rows: x.n, Cols: dst.Cols, Stride: cols, Data: x.o})
}

// restore and save take the rows up where they were left, and leave them: sums of values in
// dst.
func (x *rows) restore(e *engine, dst blas32.General, wait []float32) {
	for i := range x.n {
		x.top[i], x.sum[i] = wait[2*i], wait[2*i+1]
		copy(x.o[i*e.outCols():], mat.Row(dst, i))
	}
}

func (x *rows) save(e *engine, dst blas32.General, wait []float32) {
	for i := range x.n {
		wait[2*i], wait[2*i+1] = x.top[i], x.sum[i]
		copy(mat.Row(dst, i), x.o[i*e.outCols():])
	}
}

// stripWork is what a worker needs for the strips of its rows.
type stripWork struct {
	s    []float32 // [rows of a strip][scoreStride], scores
	ones []float32 // [rows of a strip]
}

func (w *stripWork) reserve(e *engine) {
	if w.s != nil {
		return
	}
	w.s, w.ones = scratch.Floats(nil, e.tile.Rows()*e.scoreStride()), make([]float32, e.tile.Rows())
	for i := range w.ones {
		w.ones[i] = 1
	}
}

// workerBytes is the memory of a worker for n rows.
func (e *engine) workerBytes(n int) int64 {
	return 4 * (int64(n)*int64(e.dim+e.outCols()+3) + int64(e.tile.Rows())*int64(e.scoreStride()+1) + 64)
}

// attend takes rows through tiles, one or as many as share a step of the softmax; while it
// does, it asks for the memory of those that come next. at is the position of the first row
// where keys after a row's own are hidden, or noPosition: then rows see all.
func (e *engine) attend(w *stripWork, x *rows, list, next []packed, at int) {
	height := e.tile.Rows()
	for i := 0; i < x.n; i += height {
		n := min(height, x.n-i)
		s := blas32.General{Rows: n, Stride: e.scoreStride(), Data: w.s}
		q := blas32.General{Rows: n, Cols: e.dim, Stride: e.dim, Data: x.q[i*e.dim:]}
		for j := range list {
			t := &list[j]
			keys := t.keys
			if at != noPosition {
				keys = min(keys, at+i+n-t.start) // what the last row sees
			}
			if keys <= 0 {
				break
			}
			var ahead []float32
			if j < len(next) {
				ahead = next[j].data[len(next[j].data)*i/x.n:]
			}
			part := blas32.General{Rows: n, Cols: e.tile.Panels(keys) * e.tile.Panel(), Stride: s.Stride, Data: w.s[s.Cols:]}
			e.tile.ScoresAhead(part, q, t.data[:part.Cols*e.dim], ahead)
			for row := range n {
				y := part.Data[row*part.Stride:][:keys]
				if t.weighted {
					asm.Add(y, y, t.data[e.slot.w:][:keys])
				}
				if at != noPosition {
					kernel.Hide(y[max(min(at+i+row+1-t.start, keys), 0):])
				}
			}
			s.Cols += keys // tiles of which several share a step are whole panels, but for the last
		}
		if s.Cols == 0 {
			continue
		}
		factor := x.factor[i : i+n]
		e.tile.Weights(s, x.top[i:i+n], x.sum[i:i+n], factor)
		cols := e.outCols()
		o := blas32.General{Rows: n, Cols: cols, Stride: cols, Data: x.o[i*cols:]}
		col := 0
		for j := 0; col < s.Cols; j++ {
			t := &list[j]
			p := blas32.General{Rows: n, Cols: min(t.keys, s.Cols-col), Stride: s.Stride, Data: w.s[col:]}
			if t.finite {
				e.tile.Values(o, p, t.data[e.slot.v:e.slot.w], e.keys, 0, factor)
			} else {
				tile.SparseValues(o, p, t.data[e.slot.v:e.slot.w], e.tile.Panel(), e.keys, 0, factor)
			}
			factor = w.ones[:n]
			col += p.Cols
		}
	}
}

// noPosition is the position of rows that see all keys of a tile.
const noPosition = math.MinInt
