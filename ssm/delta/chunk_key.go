package delta

import (
	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// keyWork is the working memory for decays of each key channel, [n, K] all.
//
// Where those of a piece are mild, exp(c_i - c_j) is exp(c_i) times exp(-c_j), which float32
// holds, and all products of rows are one of matrices. Elsewhere it does not factor into
// numbers that are safe to make, and the piece goes token by token. There are products of
// decays alone, no sums of logarithms.
type keyWork struct {
	grow      []float32 // what decays leave from before the piece to a token
	near      []float32 // keys over grow
	tail      []float32 // keys times what decays leave from their token to the piece's end
	left, ask []float32 // what is read and asked with times grow; ask of each query
	nearT     kernel.Matrix
}

// weighByKey makes c.left, c.ask and c.written of a head with a decay for each key channel, if
// decays are mild, which it returns.
func (w *headWork) weighByKey(op *Recurrence, call *Call, p piece, h int) bool {
	c, n, width := &w.chunk, p.n, op.cfg.KeyDim
	k, size := &c.keys, n*width
	k.grow, k.near, k.tail = scratch.Floats(k.grow, size), scratch.Floats(k.near, size), scratch.Floats(k.tail, size)
	near, keys := mat.Of(k.near, n, width), mat.Of(w.k, n, width)
	if !kernel.DeltaKeys(mat.Of(k.grow, n, width), near, mat.Of(k.tail, n, width), mat.Columns(mat.Rows(call.Decay, p.t, p.t+n), h*width, width), keys) {
		return false
	}
	k.nearT.SetT(near)
	c.written, c.last, c.rest = mat.Of(k.tail, n, width), k.grow[size-width:], c.ones
	k.ask = scratch.Floats(k.ask, op.each*size)
	for q := range op.each {
		asm.Mul(k.ask[q*size:][:size], w.q[q*size:][:size], k.grow)
	}
	c.ask.x, c.ask.by = mat.Of(k.ask, op.each*n, width), c.ones
	kernel.Gemm(mat.Of(c.ask.m, op.each*n, n), c.ask.x, &k.nearT, nil)
	if op.cfg.Erase == NoErase {
		return true
	}
	erasers := w.k
	if op.cfg.Erase != EraseKey {
		erasers = w.erasers(op, call, p, h)
	}
	k.left = scratch.Floats(k.left, size)
	if op.cfg.EraseFirst { // the decay up to the token before
		copy(k.left, erasers[:width])
		asm.Mul(k.left[width:], erasers[width:size], k.grow[:size-width])
	} else {
		asm.Mul(k.left, erasers[:size], k.grow)
	}
	c.left.x, c.left.by = mat.Of(k.left, n, width), c.less
	m := mat.Of(c.left.m, n, n)
	kernel.Gemm(m, c.left.x, &k.nearT, nil)
	kernel.ScaleRows(m, c.less, m)
	return true
}
