package delta

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// noneLeft is a logarithm whose exponential is 0 in float32. Decays below it are taken for
// it: differences of -Inf would be NaN, and huge sums lose the digits of small ones.
const noneLeft = -256

// sumLogs sets c.sum to the sums of a head's logarithms, c.grow and c.rest to the
// exponentials of those before and after each token, and c.step to a token's own.
func (c *chunkWork) sumLogs(op *Recurrence, call *Call, p piece, h int) {
	n := p.n
	c.sum = append(scratch.Sized(c.sum, n+1)[:0], 0)
	var sum float64
	c.grow, c.rest = scratch.Floats(c.grow, n+1), scratch.Floats(c.rest, n)
	c.step = scratch.Floats(c.step, n)
	for t := range n {
		var g float32
		switch op.cfg.Decay {
		case ConstantDecay:
			g = op.cfg.LogDecay[h]
		case HeadDecay:
			g = max(mat.Row(call.Decay, p.t+t)[h], noneLeft)
		}
		c.step[t] = g
		sum += float64(g)
		c.sum = append(c.sum, sum)
	}
	for t, s := range c.sum {
		c.grow[t] = float32(s)
	}
	for t := range n {
		c.rest[t] = float32(sum - c.sum[t+1])
	}
	asm.Exp(c.grow, c.grow)
	asm.Exp(c.rest, c.rest)
	asm.Exp(c.step, c.step)
	// Subnormal numbers take many times as long to multiply.
	kernel.Flush(c.grow)
	kernel.Flush(c.rest)
	kernel.Flush(c.step)
}

// weighByHead makes c.left, c.ask and c.tail of a head with one decay for all key channels:
// products without decay, times exp(c_i - c_j).
func (w *headWork) weighByHead(op *Recurrence, call *Call, p piece, h int) {
	c, n, width := &w.chunk, p.n, op.cfg.KeyDim
	c.sumLogs(op, call, p, h)
	erasers, read := w.negative, c.kk
	if op.cfg.Erase >= EraseGated {
		erasers = w.erasers(op, call, p, h)
		read = c.m[readKey]
		kernel.Gemm(mat.Of(read, n, n), mat.Of(erasers, n, width), &c.kT, nil)
	}
	pair := c.parts == 2
	if pair {
		c.bT.SetT(mat.Columns(mat.Rows(call.Insert, p.t, p.t+n), h*width, width))
		kernel.Gemm(mat.Of(c.m[readPair], n, n), mat.Of(erasers, n, width), &c.bT, nil)
		kernel.Gemm(mat.Of(c.m[askPair], op.each*n, n), mat.Of(w.q, op.each*n, width), &c.bT, nil)
	}
	c.multiplyFalls(op, n)
	wide := width + c.parts*n
	if op.cfg.Erase != NoErase {
		before := 0
		if op.cfg.EraseFirst { // the decay up to the token before
			before = n
		}
		c.fall(c.m[readKey][before:n*n], read[before:])
		if pair {
			c.fall(c.m[readPair][before:n*n], c.m[readPair][before:])
		}
	}
	for q := range op.each {
		at := q * n * n
		if pair {
			c.fall(c.m[askKey][at:][:n*n], c.qk[at:])
			c.fall(c.m[askPair][at:][:n*n], c.m[askPair][at:])
			continue
		}
		for i := range n {
			to, from := c.ask[(q*n+i)*wide+width:][:i+1], c.qk[at+i*n:][:i+1]
			if len(c.falls) == 0 {
				copy(to, from)
			} else {
				asm.Mul(to, from, c.falls[i*n:][:i+1])
			}
		}
	}
	rows := func(x []float32, at, wide int) blas32.General {
		return mat.Columns(mat.Of(x[at*wide:], n, wide), 0, width)
	}
	if op.cfg.Erase != NoErase {
		before := c.grow[1:]
		if op.cfg.EraseFirst {
			before = c.grow
		}
		kernel.ScaleRows(rows(c.left, 0, wide), before[:n], mat.Of(erasers, n, width))
	}
	for q := range op.each {
		kernel.ScaleRows(rows(c.ask, q*n, wide), c.grow[1:], rows(w.q, q*n, width))
	}
	for from := 0; from < n; from += c.block {
		own := min(c.block, n-from)
		kernel.ScaleRows(mat.Of(c.tailRow(from, 0, n, width), own, width), c.rest[from:from+own], mat.Of(w.k[from*width:], own, width))
		if pair {
			kernel.ScaleRows(mat.Of(c.tailRow(from, 1, n, width), own, width), c.rest[from:from+own], mat.Columns(mat.Rows(call.Insert, p.t+from, p.t+from+own), h*width, width))
		}
	}
	for d := range c.last {
		c.last[d] = c.grow[n]
	}
	w.assemble(op, n, width)
}

// multiplyFalls sets c.falls to exp(c_i - c_j) for j <= i, by products of the tokens' own
// decays, and 0 to the right. Without decay it is empty.
func (c *chunkWork) multiplyFalls(op *Recurrence, n int) {
	if op.cfg.Decay == NoDecay {
		c.falls = c.falls[:0]
		return
	}
	c.falls = scratch.Floats(c.falls, n*n)
	for i := range n {
		row := c.falls[i*n:][:n]
		if i > 0 {
			asm.Scale(row[:i], c.step[i], c.falls[(i-1)*n:][:i])
		}
		row[i] = 1
		clear(row[i+1:])
	}
	kernel.Flush(c.falls)
}

// fall sets dst to the products from, times the decays between their tokens.
func (c *chunkWork) fall(dst, from []float32) {
	if len(c.falls) == 0 {
		copy(dst, from)
	} else {
		asm.Mul(dst, from[:len(dst)], c.falls[:len(dst)])
	}
}

// at returns where token j's part stands among the rows below a state: blocks of n tokens
// in all, each with its parts one after the other.
func (c *chunkWork) at(j, part, n int) int {
	from := j / c.block * c.block
	return c.parts*from + part*min(c.block, n-from) + j - from
}

// tailRow returns c.tail from the row of token j's part on.
func (c *chunkWork) tailRow(j, part, n, width int) []float32 {
	return c.tail[c.at(j, part, n)*width:]
}

// erasers sets and returns the rows that a head's state is read with for the erasure: what
// is read with all but a pair's is taken off, so that they are negative.
func (w *headWork) erasers(op *Recurrence, call *Call, p piece, h int) []float32 {
	c, width := &w.chunk, op.cfg.KeyDim
	c.eraserRows = scratch.Floats(c.eraserRows, p.n*width)
	for t := range p.n {
		row := c.eraserRows[t*width:][:width]
		if e := w.eraser(op, call, p, h, t, row); c.parts == 1 {
			asm.Scale(row, -1, e)
		} else {
			copy(row, e)
		}
	}
	return c.eraserRows
}

// assemble brings the products into c.left and c.ask, to the right of what multiplies the
// state, and a block's own triangle of beta L into c.solve.
func (w *headWork) assemble(op *Recurrence, n, width int) {
	c := &w.chunk
	wide := width + c.parts*n
	for from := 0; from < n; from += c.block {
		own := min(c.block, n-from)
		if op.cfg.Erase != NoErase {
			c.assembleLeft(w.beta, from, own, n, width)
		}
		for q := range op.each {
			for i := from; i < from+own; i++ {
				row := c.ask[(q*n+i)*wide+width:][:c.parts*(from+own)]
				if c.parts == 1 {
					clear(row[i+1:])
					continue
				}
				c.spread(row, c.m[askKey][(q*n+i)*n:], 0, i+1, n)
				c.spread(row, c.m[askPair][(q*n+i)*n:], 1, i+1, n)
			}
		}
	}
}

// assembleLeft is assemble for own rows of L from a block's first one on.
func (c *chunkWork) assembleLeft(beta []float32, from, own, n, width int) {
	wide := width + c.parts*n
	if c.parts == 1 {
		for i := from; i < from+own; i++ {
			row := c.m[readKey][i*n:][:i]
			copy(c.left[i*wide+width:], row[:from])
			by := -beta[i]
			for j, x := range row[from:] {
				c.solve[i*c.block+j] = by * x
			}
		}
		return
	}
	for i := from; i < from+own; i++ {
		row := c.left[i*wide+width:][:c.parts*(from+own)]
		c.spread(row, c.m[readKey][i*n:], 0, i, n)
		c.spread(row, c.m[readPair][i*n:], 1, from, n)
		asm.Scale(c.solve[i*c.block:][:i-from], -1, c.m[readPair][i*n+from:][:i-from])
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

// invert replaces each block's triangle N in c.solve by the inverse of 1 + N, times the
// betas of its columns.
func (c *chunkWork) invert(op *Recurrence, beta []float32, n int) {
	if op.cfg.Erase == NoErase {
		return
	}
	var line [64]float32
	for from := 0; from < n; from += c.block {
		own := min(c.block, n-from)
		for i := range own {
			row := c.solve[(from+i)*c.block:][:own]
			weights := line[:i]
			copy(weights, row)
			clear(row)
			for j, x := range weights {
				for k, v := range c.solve[(from+j)*c.block:][:j+1] {
					row[k] -= float32(x * v)
				}
			}
			row[i] = 1
		}
		if c.parts == 1 {
			for i := range own {
				for j := range i + 1 {
					c.solve[(from+i)*c.block+j] *= beta[from+j]
				}
			}
		}
	}
}
