package approx

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/tile"
)

// tileKeys is how many keys of chosen blocks are attended to at a time, at least a block.
func (m *MRA2) tileKeys() int { return max(1, 256/m.cfg.Block) * m.cfg.Block }

// mraExact is exact attention of a block of queries to chosen blocks of keys.
type mraExact struct {
	q                []float32 // [b, D], times the scale
	o                []float32 // [b, Dv], whole panels
	s                []float32 // [b, tileKeys + tile.Pad] scores
	top, sum, factor []float32 // [b], as tile.AttentionTile.Weights has them
	k, v             []float32 // packed keys and values
	rows             []float32 // [b, D or Dv] of a block of which some are hidden
	bias             []float32 // [tileKeys] log-weights
	ones             []float32 // of 1
}

// one makes ones of n elements or more.
func (x *mraExact) one(n int) {
	for len(x.ones) < n {
		x.ones = append(x.ones, 1)
	}
}

// attendTask writes the rows of some blocks of queries of a unit.
func (r *mraRun) attendTask(worker, task int) {
	s, w := &r.op.shape, &r.work[worker]
	w.pace.begin(&r.workers)
	wave := r.sequenceOf(task, func(s *mraSequence) int { return s.tasks })
	at := &r.wave[wave]
	task -= at.tasks
	h, from := task%s.heads, task/s.heads*mraRows
	to := min(from+mraRows, at.blocks)
	c := &r.choices[wave*s.heads+h]
	if !r.op.cfg.Sparse {
		r.approximate(w, wave, h, from, to, c)
	}
	for x := from; x < to; x++ {
		r.exactly(&w.exact, at, h, x, c.pairs[c.starts[x]:c.starts[x+1]])
		if r.workers.Stopped() {
			return
		}
		first, end := r.tokens(at, x)
		for i := first; i < end; i++ {
			r.finish(w, i, h, i-first, x-from, c.lost[x])
		}
	}
}

// approximate sums up what some blocks of queries have of the pairs that are not exact:
// weights counts[y] exp(low[x][y] - top[x]), of which w.den are the sums, times the means of
// the values, w.coarse.
func (r *mraRun) approximate(w *mraWork, wave, h, from, to int, c *mraChoice) {
	s, at := &r.op.shape, &r.wave[wave]
	n, g := to-from, h/s.group()
	low := r.coarse(w, wave, h, from, to)
	w.top, w.den = scratch.Floats(w.top, mraRows), scratch.Floats(w.den, mraRows)
	w.coarse = scratch.Floats(w.coarse, mraRows*s.valueDim)
	for i := range n {
		row := mat.Row(low, i)
		w.top[i] = asm.Max(row)
		kernel.ExpSum(row, row, w.top[i])
		for _, pair := range c.pairs[c.starts[from+i]:c.starts[from+i+1]] {
			row[int(pair)-(from+i)*at.blocks] = 0
		}
		asm.Mul(row, row, r.countsOf(at, g))
		w.den[i] = asm.Sum(row)
	}
	w.pace.gemm(mat.Of(w.coarse, n, s.valueDim), low, &r.packed[wave*s.kvHeads+g].v)
}

// exactly attends a block of queries of a head to the keys of its pairs.
func (r *mraRun) exactly(x *mraExact, at *mraSequence, h, block int, pairs []int32) {
	m, s := r.op, &r.op.shape
	from, to := r.tokens(at, block)
	n, size, b := to-from, m.tileKeys(), m.cfg.Block
	cols := m.tile.Panels(s.valueDim) * m.tile.Panel()
	x.q, x.o, x.s = scratch.Floats(x.q, b*s.dim), scratch.Floats(x.o, b*cols), scratch.Floats(x.s, b*(m.tile.Panels(size)*m.tile.Panel()+tile.Pad))
	x.top, x.sum, x.factor = scratch.Floats(x.top, b), scratch.Floats(x.sum, b), scratch.Floats(x.factor, b)
	x.k, x.v = scratch.Floats(x.k, m.tile.Panels(size)*m.tile.Panel()*s.dim), scratch.Floats(x.v, size*cols)
	for i := range n {
		x.factor[i], x.top[i], x.sum[i] = m.cfg.Scale, -math.MaxFloat32, 0
	}
	q, o := mat.Of(x.q, n, s.dim), mat.Of(x.o, n, cols)
	kernel.ScaleRows(q, x.factor[:n], mat.Columns(mat.Rows(r.call.Q, from, to), h*s.dim, s.dim))
	mat.Clear(o)
	together := size / b
	for len(pairs) > 0 {
		some := pairs[:min(together, len(pairs))]
		pairs = pairs[len(some):]
		keys := 0
		for _, pair := range some {
			keys += r.packBlock(x, at, h/s.group(), int(pair)-block*at.blocks, keys)
		}
		scores := blas32.General{Rows: n, Cols: m.tile.Panels(keys) * m.tile.Panel(), Data: x.s}
		scores.Stride = scores.Cols + tile.Pad
		step := rowsAtOnce(keys * (s.dim + s.valueDim))
		for i := 0; i < n; i += step {
			end := min(i+step, n)
			if r.workers.Stopped() {
				return
			}
			part := mat.Rows(scores, i, end)
			m.tile.Scores(part, mat.Rows(q, i, end), x.k)
			part.Cols = keys
			for j := 0; r.hides() && j < part.Rows; j++ {
				asm.Add(mat.Row(part, j), mat.Row(part, j), x.bias[:keys])
			}
			m.tile.Weights(part, x.top[i:end], x.sum[i:end], x.factor[i:end])
			m.tile.Values(mat.Rows(o, i, end), part, x.v, size, 0, x.factor[i:end])
		}
	}
}

// hides tells whether keys may be hidden, or have weights.
func (r *mraRun) hides() bool { return r.call.Valid != nil || r.call.weighted() }

// packBlock packs the keys and values of a block as those from key place of the tile on, and
// returns how many they are. What is hidden stands as zeros.
func (r *mraRun) packBlock(x *mraExact, at *mraSequence, g, block, place int) int {
	m, s := r.op, &r.op.shape
	from, to := r.tokens(at, block)
	k := mat.Columns(mat.Rows(r.call.K, from, to), g*s.dim, s.dim)
	v := mat.Columns(mat.Rows(r.call.V, from, to), g*s.valueDim, s.valueDim)
	kernel.PrefetchRows(k)
	kernel.PrefetchRows(v)
	if r.hides() {
		x.bias = scratch.Floats(x.bias, m.tileKeys())
		for i := range k.Rows {
			x.bias[place+i] = negInf
			if r.call.seenBy(from+i, g) {
				x.bias[place+i] = 0
				if r.call.weighted() {
					x.bias[place+i] = r.call.logWeight(from+i, g)
				}
			}
		}
		seen := func(i int) bool { return x.bias[place+i] != negInf }
		m.tile.PackKeys(x.k, place, shown(&x.rows, k, seen))
		m.tile.PackValues(x.v, m.tileKeys(), place, shown(&x.rows, v, seen))
		return k.Rows
	}
	m.tile.PackKeys(x.k, place, k)
	m.tile.PackValues(x.v, m.tileKeys(), place, v)
	return k.Rows
}

// finish writes what a query has of both resolutions: i is its row among exact ones, x its
// block among the approximated. The choice of a block that is lost is none.
func (r *mraRun) finish(w *mraWork, query, h, i, x int, lost bool) {
	s, e := &r.op.shape, &w.exact
	out := mat.Part(r.call.Dst, query, h*s.valueDim, s.valueDim)
	cols := r.op.tile.Panels(s.valueDim) * r.op.tile.Panel()
	exact := e.o[i*cols:][:s.valueDim]
	switch {
	case !r.there(query):
		clear(out)
	case r.op.cfg.Sparse && lost:
		fill(out, float32(math.NaN()))
	case r.op.cfg.Sparse:
		asm.Scale(out, 1/(e.sum[i]+mraEps), exact)
	default:
		// Both are brought to the larger of their largest exponents.
		shift := max(e.top[i], w.top[x])
		fine, coarse := float32(math.Exp(float64(e.top[i]-shift))), float32(math.Exp(float64(w.top[x]-shift)))
		scale := 1 / (fine*e.sum[i] + coarse*w.den[x] + mraEps)
		asm.Scale(out, fine*scale, exact)
		asm.Axpy(out, coarse*scale, w.coarse[x*s.valueDim:][:s.valueDim])
	}
}
