package ssm

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/kernel/scalar"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// A piece of at least mildTokens tokens is computed with its decay kept apart, where that
// is mild; where it is not, one of at least productTokens by matrix products. Both are
// measured, with 64 channels and 128 states.
const mildTokens, productTokens = 6, 48

// form is how a piece of a head is computed.
type form uint8

const (
	recurrent form = iota
	mild
	products
	sparse
)

// chooseForm chooses by a piece's length n, and by a head's steps and the logarithms of
// its decays: every H-th element of dt and log.
func (op *SSD) chooseForm(dt, log []float32, n int) form {
	if n < mildTokens || op.cfg.Recurrent {
		return recurrent
	}
	if n >= sparseTokens && op.countWrites(dt, n)*sparseShare <= n {
		return sparse
	}
	var sum float64
	for t := range n {
		sum += math.Abs(float64(log[t*op.cfg.Heads]))
	}
	switch {
	case sum < mildDecay:
		return mild
	case n < productTokens:
		return recurrent
	}
	return products
}

// maskRows is how many tokens are multiplied by the same part of the mask: a
// multiple of every tier's tile.
const maskRows = 24

// mildDecay bounds the sum of the logarithms of a piece's decays, so that the inverse of
// the decay, times any reasonable input, is far from overflowing, and its rounding from
// mattering.
const mildDecay = 32

// sumLogs sets sum to the sums of the logarithms of the decays up to and with each
// token, and returns the last.
func (w *headWork) sumLogs(sh *pieceShared, n, heads, h int) float64 {
	w.row, w.scale = scratch.Floats(w.row, n), scratch.Floats(w.scale, n)
	w.sum = w.sum[:0]
	var sum float64
	for t := range n {
		sum += float64(sh.log[t*heads+h])
		w.sum = append(w.sum, sum)
	}
	return sum
}

// decayOf returns exp(log), or 0 where kernel.Flush would make it that: subnormal numbers
// take many times as long to multiply, and strong decays leave many of them in a chunk.
func decayOf(log float64) float32 {
	decay := float32(math.Exp(log))
	if decay < scalar.Tiny {
		return 0
	}
	return decay
}

// sweepMild computes piece i of head h by the recurrence, its decay kept apart: with
// sum_t the logarithms of the decays up to and with t,
//
//	S = S + B exp(-sum_t) dt x^T;  y = exp(sum_t) S^T C
//
// and exp(sum_n) S at the end, which saves a product for each element of the state.
func (w *headWork) sweepMild(s *ssdWork, h, i int, y, values blas32.General) {
	op, p, sh := s.op, s.pieces[i], &s.shared[i]
	n, heads, states, width := p.n, op.cfg.Heads, op.cfg.States, op.cfg.HeadDim
	sum := w.sumLogs(sh, n, heads, h)
	for t, v := range w.sum {
		w.row[t], w.scale[t] = float32(v), float32(-v)
	}
	asm.Exp(w.row, w.row)
	asm.Exp(w.scale, w.scale)
	for t := range n {
		w.scale[t] *= sh.dt[t*heads+h]
	}
	w.now = scratch.Floats(w.now, n*width)
	now := mat.Of(w.now, n, width)
	kernel.ScaleRows(now, w.scale, mat.Columns(mat.Rows(s.call.X, p.t, p.t+n), h*width, width))
	group := h / (heads / op.cfg.Groups)
	kernel.AccumulateScaled(y, values, sh.bc[group*2*n*states:][:2*n*states], now, w.row)
	asm.Scale(values.Data, float32(math.Exp(sum)), values.Data)
}

// sweepProducts computes piece i of head h by matrix products. With sum_t as in
// sweepMild, L_tj = exp(sum_t - sum_j) for j <= t and 0 above,
//
//	y = [exp(sum) C | C B^T * L] [S; dt x]
//	S = exp(sum_n) S + B^T (exp(sum_n - sum) dt x).
//
// Differences alone are exponentiated, so that no decay is too fast.
func (w *headWork) sweepProducts(s *ssdWork, h, i int, y blas32.General) {
	op, p, sh := s.op, s.pieces[i], &s.shared[i]
	n, heads, states, width := p.n, op.cfg.Heads, op.cfg.States, op.cfg.HeadDim
	group, wide := h/(heads/op.cfg.Groups), states+n
	sum := w.sumLogs(sh, n, heads, h)
	c := w.maskProducts(mat.Of(sh.c[group*n*wide:], n, wide), states)
	for t := range n {
		w.scale[t] = sh.dt[t*heads+h]
	}
	b := s.groupPart(s.call.B, p, group)
	x := mat.Columns(mat.Rows(s.call.X, p.t, p.t+n), h*width, width)
	for j := range w.state {
		below := mat.Rows(w.state[j].Panel(0), states, wide)
		kernel.ScaleRows(below, w.scale, mat.Columns(x, j*kernel.PanelCols(), below.Cols))
		for t := 0; t < n; t += maskRows {
			to := min(t+maskRows, n)
			right := w.state[j].PanelRows(0, 0, states+to)
			kernel.Gemm(mat.Columns(mat.Rows(y, t, to), j*kernel.PanelCols(), below.Cols), mat.Columns(mat.Rows(c, t, to), 0, states+to), &right, nil)
		}
	}
	for t, v := range w.sum {
		w.scale[t] = float32(sum - v)
	}
	asm.Exp(w.scale, w.scale)
	kernel.Flush(w.scale)
	for j := range w.state {
		state, below := w.statePanel(op, j), mat.Rows(w.state[j].Panel(0), states, wide)
		kernel.ScaleRows(below, w.scale, below)
		asm.Scale(state.Data, decayOf(sum), state.Data)
		right := w.state[j].PanelRows(0, states, wide)
		kernel.GemmTAdd(state, b, &right)
	}
}

// maskProducts returns [exp(sum) C | C B^T * L] of [C | C B^T].
func (w *headWork) maskProducts(c blas32.General, states int) blas32.General {
	w.c = scratch.Floats(w.c, c.Rows*c.Cols)
	out := mat.Of(w.c, c.Rows, c.Cols)
	for t, sum := range w.sum {
		from, to := mat.Row(c, t), mat.Row(out, t)
		asm.Scale(to[:states], decayOf(sum), from[:states])
		row := w.row[:t+1]
		for j := range row {
			row[j] = float32(sum - w.sum[j])
		}
		asm.Exp(row, row)
		kernel.Flush(row)
		asm.Mul(to[states:][:t+1], row, from[states:][:t+1])
		clear(to[states+t+1:])
	}
	return out
}

// sweepTokens computes piece i of head h by the recurrence.
func (w *headWork) sweepTokens(s *ssdWork, h, i int, y, values blas32.General) {
	op, p, sh := s.op, s.pieces[i], &s.shared[i]
	heads, width := op.cfg.Heads, op.cfg.HeadDim
	group := h / (heads / op.cfg.Groups)
	b, c := s.groupPart(s.call.B, p, group), s.groupPart(s.call.C, p, group)
	for t := range p.n {
		if sh.dt[t*heads+h] == 0 && sh.decay[t*heads+h] == 1 { // passed over
			kernel.Combine(mat.Row(y, t), values, mat.Row(c, t))
			continue
		}
		asm.Scale(w.x, sh.dt[t*heads+h], mat.Part(s.call.X, p.t+t, h*width, width))
		kernel.OuterStep(mat.Row(y, t), values, sh.decay[t*heads+h], mat.Row(b, t), mat.Row(c, t), w.x)
	}
}
