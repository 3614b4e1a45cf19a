package delta

import (
	"gonum.org/v1/gonum/blas/blas32"

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
	near      []float32 // keys over what decays leave from before the piece to a token
	left, ask []float32 // what is read and asked with, times that; ask of each query
	nearT     kernel.Matrix
}

// weighByKey makes c.left, c.ask and c.written of a head with a decay for each key channel, if
// decays are mild, which it returns.
func (w *headWork) weighByKey(op *Recurrence, call *Call, p piece, h int) bool {
	c, n, width := &w.chunk, p.n, op.cfg.KeyDim
	k, size := &c.keys, n*width
	k.near, k.left, k.ask = scratch.Floats(k.near, size), scratch.Floats(k.left, size), scratch.Floats(k.ask, op.each*size)
	square := func(x []float32) blas32.General { return mat.Of(x, n, n) }
	rows := func(x []float32) blas32.General { return mat.Of(x, n, width) }
	keys := kernel.DeltaKeys{Logs: mat.Columns(mat.Rows(call.Decay, p.t, p.t+n), h*width, width), K: rows(w.k), Erase: rows(w.k), First: op.cfg.EraseFirst}
	if op.cfg.Erase >= EraseGated {
		keys.Erase = rows(w.erasers(op, call, p, h))
	}
	c.left.x, c.left.by, c.ask.x, c.ask.by = rows(k.left), c.less, mat.Of(k.ask, op.each*n, width), c.ones
	c.written, c.rest, c.after = rows(k.near), c.ones, true
	for q := range op.each {
		keys.Q = rows(w.q[q*size:])
		if !keys.Multiply(c.written, c.left.x, rows(k.ask[q*size:]), c.last) {
			return false
		}
	}
	k.nearT.SetT(c.written)
	for q := range op.each {
		kernel.DeltaProducts(square(c.ask.m[q*n*n:]), rows(k.ask[q*size:]), &k.nearT)
	}
	if op.cfg.Erase != NoErase {
		m := square(c.left.m)
		kernel.DeltaProducts(m, c.left.x, &k.nearT)
		kernel.ScaleRows(m, c.less, m)
	}
	return true
}
