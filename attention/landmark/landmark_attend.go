package landmark

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/tile"
)

// attendTask does a tile of query rows of one head.
func (r *run) attendTask(worker, task int) {
	w, a := &r.work[worker], r.op
	d, cols, panel := a.cfg.HeadDim, a.outCols(), a.tile.Panel()
	head := task % a.cfg.Heads
	g := head / (a.cfg.Heads / a.cfg.KVHeads)
	// The last rows, which see most, come first.
	first := (tilesFor(r.q.Rows, a.sizes.Rows) - 1 - task/a.cfg.Heads) * a.sizes.Rows
	n := min(a.sizes.Rows, r.q.Rows-first)
	for i := range n {
		asm.Scale(w.q[i*d:][:d], a.cfg.Scale, mat.Row(r.q, first+i)[head*d:][:d])
		w.top[i], w.sum[i] = -math.MaxFloat32, 0
	}
	clear(w.o[:n*cols])
	if r.state != nil {
		for i := range n {
			w.read(r, i, first+i, head)
		}
	}
	height, done := a.tile.Rows(), 0
	for b := range r.sections {
		s := &r.sections[b]
		if s.from > r.past+first+n-1 {
			break
		}
		if done += n * (s.to - s.from + panel) * (d + cols); done >= lookWork {
			if done = 0; r.group.Stopped() {
				return
			}
		}
		if b%panel == 0 {
			w.landmarkLogits(r, b, g, n)
		}
		for i := 0; i < n; i += height {
			w.strip(r, s, b%panel, g, first, i, min(height, n-i))
		}
	}
	for i := range n {
		dst := mat.Row(r.call.dst, first+i)[head*a.cfg.ValueDim:][:a.cfg.ValueDim]
		factor, lse := float32(0), tile.NegInf
		if w.sum[i] != 0 {
			factor, lse = 1/w.sum[i], float32(float64(w.top[i])+math.Log(float64(w.sum[i])))
		}
		asm.Scale(dst, factor, w.o[i*cols:][:len(dst)])
		if out := r.call.lse; out.Rows > 0 {
			mat.Row(out, first+i)[head] = lse
		}
	}
}

// lookWork is after how many multiply-adds a task looks whether it may end: a few milliseconds.
const lookWork = 1 << 21

func tilesFor(n, size int) int { return (n + size - 1) / size }

// landmarkLogits fills logits with a panel of landmarks, of the sections from b
// on.
func (w *worker) landmarkLogits(r *run, b, kvHead, n int) {
	a := r.op
	d, panel := a.cfg.HeadDim, a.tile.Panel()
	for i := range min(panel, len(r.sections)-b) {
		if at := r.sections[b+i].landmark; at >= 0 {
			a.tile.PackKeys(w.landmarks, i, mat.Columns(mat.Rows(r.k, at, at+1), kvHead*d, d))
		}
	}
	a.tile.Scores(mat.Of(w.logits, n, panel), mat.Of(w.q, n, d), w.landmarks)
}

// strip adds a section to rows i ... i+n, the first of which are of earlier
// sections, then of this, then of later ones.
func (w *worker) strip(r *run, s *section, column, kvHead, first, i, n int) {
	key := func(row int) int { return r.past + first + row }
	own := max(i, s.from-r.past-first) // the first row that is in the section or after
	after := i + n
	if s.landmark >= 0 {
		after = max(own, min(after, s.landmark+1-r.past-first))
	}
	if own < after && own < i+n {
		w.ownTokens(r, s, kvHead, own, min(after, i+n)-own, key(own))
	}
	if after < i+n {
		w.block(r, s, column, kvHead, after, i+n-after)
	}
}

// ownTokens adds the tokens of the section that rows i ... i+n belong to, the
// first of them being key at.
func (w *worker) ownTokens(r *run, s *section, kvHead, i, n, at int) {
	for t := range r.tilesOf(s) {
		from, to, k, v, finite := r.tile(s, t, kvHead)
		if from > at+n-1 || t > 0 && r.group.Stopped() {
			return
		}
		x := w.scores(r, i, n, to-from, k)
		for j := range n {
			if seen := at + j + 1 - from; seen < x.Cols {
				kernel.Hide(mat.Row(x, j)[max(seen, 0):])
			}
		}
		r.op.tile.Weights(x, w.top[i:i+n], w.sum[i:i+n], w.factor[i:i+n])
		w.values(r, w.o[i*r.op.outCols():], x, v, *finite, w.factor[i:i+n])
	}
}

// block adds an earlier block to rows i ... i+n.
func (w *worker) block(r *run, s *section, column, kvHead, i, n int) {
	a := r.op
	cols, panel, tiles := a.outCols(), a.tile.Panel(), r.tilesOf(s)
	top, sum := w.blockTop[:n], w.blockSum[:n]
	for j := range n {
		top[j], sum[j] = -math.MaxFloat32, 0
	}
	clear(w.blockO[:n*cols])
	var x blas32.General
	for t := range tiles {
		if t > 0 && r.group.Stopped() {
			return
		}
		_, _, k, v, finite := r.tile(s, t, kvHead)
		x = w.scores(r, i, n, len(v)/cols, k)
		a.tile.Weights(x, top, sum, w.factor[:n])
		if tiles > 1 {
			w.values(r, w.blockO, x, v, *finite, w.factor[:n])
		}
	}
	for j := range n {
		keep, share := w.join(i+j, w.logits[(i+j)*panel+column], sum[j])
		w.factor[j] = keep
		switch o := w.o[(i+j)*cols:][:cols]; {
		case tiles == 1:
			y := mat.Row(x, j)
			asm.Scale(y, share, y)
		default:
			asm.Scale(o, keep, o)
			if tiles > 1 {
				asm.Axpy(o, share, w.blockO[j*cols:][:cols])
			}
		}
	}
	if tiles == 1 {
		_, _, _, v, finite := r.tile(s, 0, kvHead)
		w.values(r, w.o[i*cols:], x, v, *finite, w.factor[:n])
	}
}

// join takes a landmark's logit into a row's softmax. The row's values are to be
// multiplied by keep, the block's, whose weights have a sum, by share.
func (w *worker) join(i int, logit, sum float32) (keep, share float32) {
	if math.IsInf(float64(logit), -1) {
		return 1, 0
	}
	top := max(w.top[i], logit) // keeps NaN
	w.two = [2]float32{w.top[i] - top, logit - top}
	asm.Exp(w.two[:], w.two[:])
	w.top[i] = top
	w.sum[i] = float32(w.sum[i]*w.two[0]) + w.two[1]
	if sum == 0 {
		return w.two[0], 0
	}
	return w.two[0], w.two[1] / sum
}

// scores returns the logits of rows i ... i+n with packed keys.
func (w *worker) scores(r *run, i, n, keys int, k []float32) blas32.General {
	a := r.op
	d := a.cfg.HeadDim
	x := blas32.General{Rows: n, Cols: a.tile.Panels(keys) * a.tile.Panel(), Stride: a.scoreStride(), Data: w.s}
	a.tile.Scores(x, blas32.General{Rows: n, Cols: d, Stride: d, Data: w.q[i*d:]}, k)
	x.Cols = keys
	return x
}

func (w *worker) values(r *run, o []float32, x blas32.General, v []float32, finite bool, factor []float32) {
	a := r.op
	cols := a.outCols()
	m := blas32.General{Rows: x.Rows, Cols: cols, Stride: cols, Data: o}
	if finite {
		a.tile.Values(m, x, v, x.Cols, 0, factor)
	} else {
		tile.SparseValues(m, x, v, a.tile.Panel(), x.Cols, 0, factor)
	}
}
