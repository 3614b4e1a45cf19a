package ssm

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
)

// Of a piece of sparseTokens or more, of which no more than one token in sparseShare
// writes to a head's state, the others are read from a state that does not change:
// this is how a filter that drops tokens saves time.
const sparseTokens, sparseShare = 32, 16

// countWrites returns how many of a head's steps are not 0.
func (op *SSD) countWrites(dt []float32, n int) (count int) {
	for t := range n {
		if dt[t*op.cfg.Heads] != 0 {
			count++
		}
	}
	return count
}

// sweepSparse computes piece i of head h. With sum_t as in sweepMild, and j the tokens
// that write,
//
//	y_t = exp(sum_t) S^T C_t + sum over j <= t of exp(sum_t - sum_j) (C_t B_j) dt_j x_j
//	S = exp(sum_n) S + sum over j of exp(sum_n - sum_j) B_j dt_j x_j^T.
func (w *headWork) sweepSparse(s *ssdWork, h, i int, y, values blas32.General) {
	op, p, sh := s.op, s.pieces[i], &s.shared[i]
	n, heads, width := p.n, op.cfg.Heads, op.cfg.HeadDim
	group := h / (heads / op.cfg.Groups)
	b, c := s.groupPart(s.call.B, p, group), s.groupPart(s.call.C, p, group)
	sum := w.sumLogs(sh, n, heads, h)
	if !w.packed {
		w.still.Set(values)
	}
	kernel.Gemm(y, c, &w.still, nil)
	for t, v := range w.sum {
		w.row[t] = float32(v)
	}
	asm.Exp(w.row, w.row)
	kernel.Flush(w.row)
	kernel.ScaleRows(y, w.row, y)
	moved := sum != 0
	if moved {
		asm.Scale(values.Data, decayOf(sum), values.Data)
	}
	for j := range n {
		dt := sh.dt[j*heads+h]
		if dt == 0 {
			continue
		}
		moved = true
		asm.Scale(w.x, dt, mat.Part(s.call.X, p.t+j, h*width, width))
		for t := j; t < n; t++ {
			asm.Axpy(mat.Row(y, t), decayOf(w.sum[t]-w.sum[j])*asm.Dot(mat.Row(c, t), mat.Row(b, j)), w.x)
		}
		last := decayOf(sum - w.sum[j])
		for k, v := range mat.Row(b, j) {
			asm.Axpy(mat.Row(values, k), last*v, w.x)
		}
	}
	w.packed = !moved
}
