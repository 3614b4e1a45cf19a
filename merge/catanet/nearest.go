package catanet

import (
	"math"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
	"gonum.org/v1/gonum/blas/blas32"
)

// normaliseRow sets dst to x of length 1; zeros stay, and what is not finite becomes NaN.
func normaliseRow(dst, x []float32) {
	s := dense.InverseLength(x)
	if s == 0 {
		s = float32(math.NaN())
	}
	asm.Scale(dst, s, x)
}

// centers are the centres of a TAB.
type centers struct {
	means   blas32.General // [centres, Dim]
	keys    blas32.General // [centres, QKDim]
	values  blas32.General // [centres, Dim]
	nearest nearest
}

// finish makes the keys, the values and the search of the means.
func (c *centers) finish(op *TAB) {
	op.centerK.Forward(c.keys, c.means)
	op.centerV.Forward(c.values, c.means)
	c.nearest.pack(op.tile, c.means)
}

// nearest finds the nearest centre of a token.
type nearest struct {
	tile    kernel.AttentionTile
	dim     int       // width of a token
	columns int       // centres, filled up to whole panels
	panels  []float32 // [columns, dim] the centres, of length 1, in the tile's panels
	unit    []float32 // [dim] scratch
}

// pack packs the centres, of length 1; the last panel is filled with the last one.
func (a *nearest) pack(tile kernel.AttentionTile, centers blas32.General) {
	w := tile.Panel()
	a.tile, a.dim, a.columns = tile, centers.Cols, tile.Panels(centers.Rows)*w
	a.panels = scratch.Floats(a.panels, a.columns*a.dim)
	a.unit = scratch.Floats(a.unit, a.dim)
	for j := range a.columns {
		normaliseRow(a.unit, mat.Row(centers, min(j, centers.Rows-1)))
		tile.PackKeys(a.panels, j, mat.Of(a.unit, 1, a.dim))
	}
}

// assign sets the buckets of some rows; it may be called by several goroutines at once.
// Rows keep their lengths: of one row they change no comparison.
func (a *nearest) assign(bucket []int32, x blas32.General) {
	w := a.tile.Panel()
	const rows = 16
	var best, place [rows * 32]float32
	for from := 0; from < x.Rows; from += rows {
		n := min(rows, x.Rows-from)
		b, p := best[:n*w], place[:n*w]
		for i := range b {
			b[i] = float32(math.Inf(-1))
		}
		a.tile.Nearest(b, p, mat.Rows(x, from, from+n), a.panels, 0, a.columns/w)
		for i := range n {
			top, at := float32(math.Inf(-1)), int32(0)
			for l, v := range b[i*w:][:w] {
				if j := int32(p[i*w+l])*int32(w) + int32(l); v > top || v == top && v > float32(math.Inf(-1)) && j < at {
					top, at = v, j
				}
			}
			bucket[from+i] = at
		}
	}
}
