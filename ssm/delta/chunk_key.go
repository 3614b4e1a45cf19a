package delta

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// keyRows is how many rows of a chunk share a point that decays are counted from: a
// multiple of no tier's tile in particular, but few products within and few rows without.
const keyRows = 16

// keyWork is the working memory for decays of each key channel. Where those of a piece are
// mild, exp(c_i - c_j) is exp(c_i) exp(-c_j), and all products of rows are one of matrices.
//
// Elsewhere it does not factor into numbers that are safe to make, unless a point r lies
// between j and i: then it is exp(c_i - r) exp(r - c_j), both at most 1. Rows go in blocks
// of keyRows, r being c at a block's beginning: all that is before the block is a matrix
// product, and within it decays are multiplied up token by token. There are products of
// decays alone, no sums of logarithms.
type keyWork struct {
	fore, hind []float32 // [n, K]: from a block's beginning to a token, from it to the end
	grow, rest []float32 // [n, K]: the same of the whole piece
	back       []float32 // [n, K]: 1 / grow, of mild decays
	mild       bool
	near       []float32 // [n, K]: rows times hind
	x          []float32 // [keyRows, K]: rows times fore
	own        []float32 // [keyRows, K]: of a block, with decays up to a token
	yT         kernel.Matrix
	left, ask  []float32 // [n, K]: what is read and asked with times grow; ask of each query
	products   []keyProduct
}

// keyProduct is a product of rows x [n, K] with others, to go to dst [n, n]; before takes
// the decay up to the token before x's.
type keyProduct struct {
	x, dst []float32
	before bool
	grown  blas32.General // x with the decays of the piece up to its tokens
}

// mildest is the least that decays leave after a piece where they are mild: what is
// multiplied by 1/mildest is far from overflowing.
const mildest = 1.0 / (1 << 60)

// multiplyUp makes the products of decays [n, K].
func (k *keyWork) multiplyUp(decay []float32, n, width int) {
	k.grow, k.rest = scratch.Floats(k.grow, n*width), scratch.Floats(k.rest, n*width)
	row := func(x []float32, i int) []float32 { return x[i*width:][:width] }
	copy(row(k.grow, 0), row(decay, 0))
	fill(row(k.rest, n-1), 1)
	for i := 1; i < n; i++ {
		asm.Mul(row(k.grow, i), row(k.grow, i-1), row(decay, i))
		asm.Mul(row(k.rest, n-1-i), row(k.rest, n-i), row(decay, n-i))
	}
	kernel.Flush(k.grow[:n*width])
	kernel.Flush(k.rest[:n*width])
	k.mild = true
	for _, v := range row(k.grow, n-1) {
		k.mild = k.mild && v >= mildest && v <= 1
	}
	if k.mild {
		return
	}
	k.fore, k.hind = scratch.Floats(k.fore, n*width), scratch.Floats(k.hind, n*width)
	for i := range n {
		if i%keyRows == 0 {
			copy(row(k.fore, i), row(decay, i))
		} else {
			asm.Mul(row(k.fore, i), row(k.fore, i-1), row(decay, i))
		}
	}
	for i := n - 1; i >= 0; i-- {
		if i == n-1 || (i+1)%keyRows == 0 {
			fill(row(k.hind, i), 1)
		} else {
			asm.Mul(row(k.hind, i), row(k.hind, i+1), row(decay, i+1))
		}
	}
	kernel.Flush(k.fore[:n*width])
	kernel.Flush(k.hind[:n*width])
}

// multiplyBack makes the inverses of mild products, of the logarithms g [n, K] of decays.
func (k *keyWork) multiplyBack(g blas32.General) {
	width := g.Cols
	k.back = scratch.Floats(k.back, g.Rows*width)
	for i := range g.Rows {
		asm.Scale(k.back[i*width:][:width], -1, mat.Row(g, i))
	}
	asm.Exp(k.back, k.back)
	for i := width; i < len(k.back); i += width {
		asm.Mul(k.back[i:i+width], k.back[i:i+width], k.back[i-width:i])
	}
}

func fill(x []float32, v float32) {
	for i := range x {
		x[i] = v
	}
}

// multiply sets dst of each of list to the products of its rows with y [n, K], for columns
// up to each row's; those to the right are unspecified.
func (k *keyWork) multiply(list []keyProduct, y, decay []float32, n, width int) {
	row := func(x []float32, i int) []float32 { return x[i*width:][:width] }
	if k.mild {
		k.near = scratch.Floats(k.near, n*width)
		asm.Mul(k.near, y[:n*width], k.back)
		k.yT.SetT(mat.Of(k.near, n, width))
		for _, p := range list {
			kernel.Gemm(mat.Of(p.dst, n, n), p.grown, &k.yT, nil)
		}
		return
	}
	k.near, k.x, k.own = scratch.Floats(k.near, n*width), scratch.Floats(k.x, keyRows*width), scratch.Floats(k.own, keyRows*width)
	if n > keyRows {
		for j := range n / keyRows * keyRows {
			asm.Mul(row(k.near, j), row(y, j), row(k.hind, j))
		}
		k.yT.SetT(mat.Of(k.near, (n-1)/keyRows*keyRows, width))
	}
	for from := 0; from < n; from += keyRows {
		to := min(from+keyRows, n)
		if from > 0 {
			k.before(list, from, to, n, width)
		}
		// Within the block.
		for i := from; i < to; i++ {
			dots := func(p *keyProduct, until int) {
				for j := from; j < until; j++ {
					p.dst[i*n+j] = asm.Dot(row(p.x, i), row(k.own, j-from))
				}
			}
			for l := range list {
				if list[l].before {
					dots(&list[l], i)
				}
			}
			for j := from; j < i; j++ {
				asm.Mul(row(k.own, j-from), row(k.own, j-from), row(decay, i))
			}
			copy(row(k.own, i-from), row(y, i))
			for l := range list {
				if !list[l].before {
					dots(&list[l], i+1)
				}
			}
		}
	}
}

// before computes the products of rows from to to with all that is before them.
func (k *keyWork) before(list []keyProduct, from, to, n, width int) {
	row := func(x []float32, i int) []float32 { return x[i*width:][:width] }
	panel := k.yT.PanelCols()
	if last := from - keyRows; last > 0 { // those that were counted from the block before
		by := row(k.fore, from-1)
		for c := 0; c < last; c += panel {
			m := mat.Columns(k.yT.Panel(c/panel), 0, min(panel, last-c))
			kernel.ScaleRows(m, by, m)
			kernel.Flush(k.yT.Panel(c / panel).Data)
		}
	}
	_, cols := k.yT.Dims()
	cols = min(cols, (from+panel-1)/panel*panel)
	right := k.yT.Columns(0, cols)
	for l := range list {
		p := &list[l]
		for i := from; i < to; i++ {
			switch {
			case !p.before:
				asm.Mul(row(k.x, i-from), row(p.x, i), row(k.fore, i))
			case i == from:
				copy(row(k.x, 0), row(p.x, i))
			default:
				asm.Mul(row(k.x, i-from), row(p.x, i), row(k.fore, i-1))
			}
		}
		dst := blas32.General{Rows: to - from, Cols: cols, Stride: n, Data: p.dst[from*n:]}
		kernel.Gemm(dst, mat.Of(k.x, to-from, width), &right, nil)
	}
}

// weighByKey makes c.left, c.ask and c.written of a head with a decay for each key channel.
func (w *headWork) weighByKey(op *Recurrence, call *Call, p piece, h int) {
	c, n, width := &w.chunk, p.n, op.cfg.KeyDim
	k, pair := &c.keys, c.parts == 2
	w.decays(op, call, p, h)
	k.multiplyUp(w.decay, n, width)
	erasers := w.k
	if op.cfg.Erase >= EraseGated {
		erasers = w.erasers(op, call, p, h)
	}
	if k.mild {
		k.multiplyBack(mat.Columns(mat.Rows(call.Decay, p.t, p.t+n), h*width, width))
	}
	k.left, k.ask = scratch.Floats(k.left, n*width), scratch.Floats(k.ask, op.each*n*width)
	c.left.x, c.left.by = mat.Of(k.left, n, width), c.less
	c.ask.x, c.ask.by, c.rest = mat.Of(k.ask, op.each*n, width), c.ones, c.ones
	if pair {
		c.left.by = c.ones
	}
	row := func(x []float32, i int) []float32 { return x[i*width:][:width] }
	switch {
	case op.cfg.Erase == NoErase:
	case op.cfg.EraseFirst:
		copy(k.left, row(erasers, 0))
		asm.Mul(k.left[width:], erasers[width:n*width], k.grow[:(n-1)*width])
	default:
		asm.Mul(k.left, erasers[:n*width], k.grow)
	}
	for q := range op.each {
		asm.Mul(k.ask[q*n*width:][:n*width], w.q[q*n*width:][:n*width], k.grow)
	}
	c.tail = scratch.Floats(c.tail, c.parts*n*width)
	c.written = mat.Of(c.tail, c.parts*n, width)
	copy(c.last, row(k.grow, n-1))
	c.squares(op, n)
	k.multiply(w.keyProducts(op, erasers, readKey, askKey, n), w.k, w.decay, n, width)
	if !pair {
		asm.Mul(c.tail, w.k[:n*width], k.rest)
		if op.cfg.Erase != NoErase {
			kernel.ScaleRows(mat.Of(c.left.m, n, n), c.less, mat.Of(c.m[readKey], n, n))
		}
		copy(c.ask.m, c.m[askKey])
		return
	}
	w.read = scratch.Floats(w.read, n*width)
	mat.Copy(mat.Of(w.read, n, width), mat.Columns(mat.Rows(call.Insert, p.t, p.t+n), h*width, width))
	k.multiply(w.keyProducts(op, erasers, readPair, askPair, n), w.read, w.decay, n, width)
	for i := range n {
		asm.Mul(c.tailRow(i, 0, n, width)[:width], row(w.k, i), row(k.rest, i))
		asm.Mul(c.tailRow(i, 1, n, width)[:width], row(w.read, i), row(k.rest, i))
	}
	c.assemblePair(op.each, n)
}

// keyProducts lists what is multiplied with the keys, or with the other rows of a pair.
func (w *headWork) keyProducts(op *Recurrence, erasers []float32, read, ask, n int) []keyProduct {
	c, k := &w.chunk, &w.chunk.keys
	list, width := k.products[:0], op.cfg.KeyDim
	if op.cfg.Erase != NoErase {
		list = append(list, keyProduct{erasers, c.m[read], op.cfg.EraseFirst, c.left.x})
	}
	for q := range op.each {
		list = append(list, keyProduct{w.q[q*n*width:][:n*width], c.m[ask][q*n*n:][:n*n], false, mat.Rows(c.ask.x, q*n, (q+1)*n)})
	}
	k.products = list
	return list
}
