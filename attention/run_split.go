package attention

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
)

// Tiles in the parts of Config.Precision: kernel.SplitTile in place of the two products of
// kernel.AttentionTile, and all between them as in float32.

// height is how many rows a strip has, panel the width of a panel.
func (a *Attention) height() int {
	if a.split.Split() {
		return a.split.Rows()
	}
	return a.tile.Rows()
}

func (a *Attention) panel() int {
	if a.split.Split() {
		return a.split.Panel()
	}
	return a.tile.Panel()
}

// logitError bounds how far parts put a logit beside float32's, as a share of |q| |k|.
func (a *Attention) logitError() float32 {
	return [...]float32{asm.Single: 0, asm.BFloat16x3: 0x1p-14, asm.BFloat16x6: 0x1p-22, asm.BFloat16x1: 0x1p-6}[a.cfg.Precision]
}

// keysSize and valuesSize are what a packed tile takes, in float32.
func (a *Attention) keysSize() int {
	if a.split.Split() {
		return a.split.Keys(a.sizes.Keys, a.cfg.HeadDim)
	}
	return a.sizes.Keys * a.cfg.HeadDim
}

func (a *Attention) valuesSize() int {
	if a.split.Split() {
		return a.split.Values(a.sizes.Keys, a.cfg.ValueDim)
	}
	return a.sizes.Keys * a.outCols()
}

// queryStrips and weightStrip are what a tile of queries takes in parts, and a strip's weights.
func (a *Attention) queryStrips() int {
	return (a.sizes.Rows + a.split.Rows() - 1) / a.split.Rows() * a.split.Strip(a.cfg.HeadDim)
}
func (a *Attention) weightStrip() int { return a.split.Strip(a.sizes.Keys) }

// splitQueries splits the tile's queries, once for all keys.
func (w *forwardWork) splitQueries() {
	a, d := w.r.op, w.r.op.cfg.HeadDim
	if !a.split.Split() {
		return
	}
	size, height := a.split.Strip(d), a.split.Rows()
	for i := 0; i < w.rows; i += height {
		n := min(height, w.rows-i)
		a.split.SplitRows(w.qParts[i/height*size:], mat.Of(w.q[i*d:], n, d))
	}
}

// scoresSplit makes the scores of rows from i on, a strip, with whole panels of keys from panel
// first of a tile on.
func (w *forwardWork) scoresSplit(t *keyTile, s blas32.General, i, first int) {
	a, d := w.r.op, w.r.op.cfg.HeadDim
	a.split.Scores(s, w.qParts[i/a.split.Rows()*a.split.Strip(d):], t.k[a.split.Keys(first*a.split.Panel(), d):], d, w.r.stopped)
}

// weighSplit adds the values of keys from ... to of a tile with the weights s of a strip of rows from
// i on, which stand in the worker's scores as logits left them.
func (w *forwardWork) weighSplit(t *keyTile, s blas32.General, i, from, to int) {
	a, cols := w.r.op, w.r.op.outCols()
	o := blas32.General{Rows: s.Rows, Cols: cols, Stride: cols, Data: w.o[i*cols:]}
	factor := w.factor[i : i+s.Rows]
	// Keys of the same panels that are not seen have no weight.
	panel := a.split.Panel()
	before := (from - t.from) % panel
	p := blas32.General{Rows: s.Rows, Cols: whole(before+to-from, panel), Stride: s.Stride, Data: w.s}
	if p.Cols > to-from {
		for j := range p.Rows {
			row := mat.Row(p, j)
			clear(row[:before])
			clear(row[before+to-from:])
		}
	}
	if first := from - t.from - before; t.info.finite {
		a.split.Weigh(o, p, w.wParts, t.v, a.sizes.Keys, first, factor, w.r.stopped)
	} else {
		a.split.WeighSome(o, p, w.wParts, t.v, a.sizes.Keys, first, factor, w.r.stopped)
	}
}
