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
	c.falls = scratch.Floats(c.falls, 3*n+1)
	c.grow, c.rest, c.step = c.falls[:n+1], c.falls[n+1:][:n], c.falls[2*n+1:][:n]
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
	asm.Exp(c.falls, c.falls)
	kernel.Flush(c.falls) // subnormal numbers take many times as long to multiply
}

// weighByHead makes c.left, c.ask and c.written of a head with one decay for all key channels:
// products without decay, times exp(c_i - c_j).
func (w *headWork) weighByHead(op *Recurrence, call *Call, p piece, h int) {
	c, n, width := &w.chunk, p.n, op.cfg.KeyDim
	c.sumLogs(op, call, p, h)
	fill(c.last, c.grow[n])
	c.written, c.after = mat.Of(w.k, n, width), false
	c.ask.x, c.ask.by = mat.Of(w.q, op.each*n, width), c.grow[1:]
	square := func(x []float32) blas32.General { return mat.Of(x, n, n) }
	for q := range op.each {
		kernel.DeltaFall(square(c.ask.m[q*n*n:]), c.step, c.ones, square(c.qk[q*n*n:]))
	}
	if op.cfg.Erase == NoErase {
		return
	}
	c.left.x = mat.Of(w.k, n, width)
	read := c.kk
	if op.cfg.Erase != EraseKey {
		c.left.x = mat.Of(w.erasers(op, call, p, h), n, width)
		c.rk = scratch.Floats(c.rk, n*n)
		read = c.rk
		kernel.DeltaProducts(square(read), c.left.x, &c.kT)
	}
	c.left.by = c.by
	before := c.grow[1:]
	if op.cfg.EraseFirst { // the decay up to the token before
		before = c.grow[:n]
		later := func(x []float32) blas32.General {
			return blas32.General{Rows: n - 1, Cols: n - 1, Stride: n, Data: x[min(n, len(x)):]}
		}
		if n > 1 {
			kernel.DeltaFall(later(c.left.m), c.step[:n-1], c.less[1:], later(read))
		}
	} else {
		kernel.DeltaFall(square(c.left.m), c.step, c.less, square(read))
	}
	asm.Mul(c.by, c.less, before)
}

// erasers sets and returns the rows that a head's state is read with for the erasure.
func (w *headWork) erasers(op *Recurrence, call *Call, p piece, h int) []float32 {
	c, width := &w.chunk, op.cfg.KeyDim
	c.eraserRows = scratch.Floats(c.eraserRows, p.n*width)
	for t := range p.n {
		row := c.eraserRows[t*width:][:width]
		if e := w.eraser(op, call, p, h, t, row); &e[0] != &row[0] {
			copy(row, e)
		}
	}
	return c.eraserRows
}
