package delta

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// A pair's chunks: V and E stand in blocks of rows, those of V and then those of E, so that
// what a token reads stands above it.

// at returns where token j's part stands among the rows of U: blocks of n tokens in all, each
// with its parts one after the other.
func (c *chunkWork) at(j, part, n int) int {
	from := j / c.block * c.block
	return c.parts*from + part*min(c.block, n-from) + j - from
}

// tailRow returns c.tail from the row of token j's part on.
func (c *chunkWork) tailRow(j, part, n, width int) []float32 {
	return c.tail[c.at(j, part, n)*width:]
}

// pairRows are rows from t to t+own of a pair's, a block or a part of one's end.
func (c *chunkWork) pairRows(d kernel.DeltaRows, t, own, block int) *kernel.DeltaRows {
	before := c.parts*t + block
	c.rows = kernel.DeltaRows{A: mat.Rows(d.A, t, t+own), By: d.By[t : t+own], M: mat.Columns(mat.Rows(d.M, t, t+own), 0, before+own), Before: before, Ahead: d.Ahead}
	return &c.rows
}

// solvePair sets U to V and E, for values v of a panel's columns.
func (c *chunkWork) solvePair(s []float32, v blas32.General) {
	n, u := v.Rows, c.u.Panel(0)
	width := u.Cols
	c.nothing = scratch.Floats(c.nothing, n*width)
	clear(c.nothing)
	if v.Cols < width {
		clear(u.Data)
	}
	d := kernel.DeltaRows{A: c.left.x, By: c.left.by, M: mat.Of(c.left.m, n, c.parts*n), Ahead: &c.ahead}
	for t := 0; t < n; t += c.block {
		own := min(c.block, n-t)
		mat.Copy(mat.Columns(mat.Rows(u, c.parts*t, c.parts*t+own), 0, v.Cols), mat.Rows(v, t, t+own))
		c.pairRows(d, t, own, own).Solve(s, u.Data, u.Data, c.nothing[:own], mat.Of(c.nothing, own, width), c.ones[:own])
	}
}

// spread copies the first m products of a row to where their tokens' part stands, and
// zeros to the rest of their block.
func (c *chunkWork) spread(row, from []float32, part, m, n int) {
	for j := 0; j < n && c.at(j, part, n) < len(row); j += c.block {
		own := min(c.block, n-j)
		to := row[c.at(j, part, n):][:own]
		k := copy(to, from[j:max(j, min(j+own, m))])
		clear(to[k:])
	}
}

// assemblePair brings a pair's products to where the rows of U are that they belong to.
func (c *chunkWork) assemblePair(each, n int) {
	for i := range n {
		row := c.left.m[c.parts*n*i:][:c.parts*min(n, i/c.block*c.block+c.block)]
		c.spread(row, c.m[readKey][i*n:], 0, i, n)
		c.spread(row, c.m[readPair][i*n:], 1, i, n)
		for q := range each {
			to := c.ask.m[c.parts*n*(q*n+i):][:len(row)]
			c.spread(to, c.m[askKey][(q*n+i)*n:], 0, i+1, n)
			c.spread(to, c.m[askPair][(q*n+i)*n:], 1, i+1, n)
		}
	}
}
