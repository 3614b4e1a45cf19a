package delta

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
)

// Of an RWKV7's rows, all [n, Dim].
const (
	rowsR  = iota
	rowsW  // the logarithm of the decay
	rowsK  // keys
	rowsV  // values
	rowsA  // eta, and then -kappa
	rowsB  // kappa eta
	rowsG  // the gate
	rowsY  // the recurrence's output
	rwkv7N // how many there are
)

func (b *RWKV7) workFloats(n, workers int) int64 {
	rank := max(b.decay.rank(), b.rate.rank(), b.share.rank(), b.gate.rank())
	own := int64(min(n, dense.BlockRows)) * int64(2*b.dim+rank)
	return rwkv7N*int64(n)*int64(b.dim) + int64(workers)*own + b.rec.workFloats(n, workers)
}

// pass implements body.
func (b *RWKV7) pass(ctx context.Context, s *blockWork) error {
	s.rwkv = b
	if s.tasks[3] == nil {
		s.tasks[3], s.tasks[4] = s.projectRWKV7, s.finishRWKV7
	}
	for i := range rwkv7N {
		s.rows[i].size(s.n, b.dim)
	}
	if err := s.eachRows(ctx, s.tasks[3]); err != nil {
		return err
	}
	s.keepWindow(s.in(), 1, 0)
	m := func(i int) blas32.General { return s.rows[i].General }
	call := Call{Dst: m(rowsY), Q: m(rowsR), K: m(rowsK), V: m(rowsV), Decay: m(rowsW), Erase: m(rowsA), Insert: m(rowsB)}
	if err := s.recur(ctx, b.rec, &call, b.dim); err != nil {
		return err
	}
	return s.eachRows(ctx, s.tasks[4])
}

// shifts sets d to x_{t-1} - x_t for rows from to to of the piece, x [n, Dim] being all of
// its rows.
func (s *blockWork) shifts(d, x blas32.General, from, to int) {
	for i := range s.list {
		g := &s.list[i]
		for t := max(from, g.From); t < min(to, g.To); t++ {
			last := s.start(g, x.Cols)
			if t > g.From {
				last = mat.Row(x, t-1)
			}
			row := mat.Row(d, t-from)
			asm.Scale(row, -1, mat.Row(x, t))
			asm.Add(row, row, last)
		}
	}
}

// mixed sets dst to x + d mu.
func mixed(dst, x, d blas32.General, mu []float32) {
	for t := range dst.Rows {
		row := mat.Row(dst, t)
		asm.Mul(row, mat.Row(d, t), mu)
		asm.Add(row, row, mat.Row(x, t))
	}
}

// projectRWKV7 makes all that the recurrence reads of some rows.
func (s *blockWork) projectRWKV7(worker, i int) {
	b, own := s.rwkv, &s.own[worker]
	from, to := s.taskRows(i)
	x := mat.Rows(s.in(), from, to)
	own[0].size(to-from, b.dim)
	own[1].size(to-from, b.dim)
	d, in := own[0].General, own[1].General
	s.shifts(d, s.in(), from, to)
	rows := func(i int) blas32.General { return mat.Rows(s.rows[i].General, from, to) }
	low := func(dst blas32.General, l *lowRank, act func(dst, x []float32)) {
		own[2].size(to-from, l.rank())
		h := own[2].General
		l.down.ForwardIn(&s.group, h, in)
		if act != nil {
			for t := range h.Rows {
				act(mat.Row(h, t), mat.Row(h, t))
			}
		}
		l.up.ForwardIn(&s.group, dst, h)
	}
	mixed(in, x, d, b.mix[0])
	b.receptance.ForwardIn(&s.group, rows(rowsR), in)
	mixed(in, x, d, b.mix[1])
	low(rows(rowsW), &b.decay, tanh)
	mixed(in, x, d, b.mix[2])
	b.key.ForwardIn(&s.group, rows(rowsK), in)
	mixed(in, x, d, b.mix[3])
	b.value.ForwardIn(&s.group, rows(rowsV), in)
	if !b.cfg.First {
		low(rows(rowsB), &b.share, nil) // a place that is not needed yet
	}
	mixed(in, x, d, b.mix[4])
	low(rows(rowsA), &b.rate, nil)
	mixed(in, x, d, b.mix[5])
	low(rows(rowsG), &b.gate, asm.Sigmoid)
	for t := from; t < to; t++ {
		b.prepareToken(s, t, mat.Row(d, t-from))
	}
}

func tanh(dst, x []float32) { asm.Softcap(dst, 1, x) }

// prepareToken finishes row t of what the projections have made; work is [Dim].
func (b *RWKV7) prepareToken(s *blockWork, t int, work []float32) {
	at := func(i int) []float32 { return mat.Row(s.rows[i].General, t) }
	w, k, v, eta, ke := at(rowsW), at(rowsK), at(rowsV), at(rowsA), at(rowsB)
	asm.Sigmoid(w, w)
	asm.Scale(w, float32(-math.Exp(-0.5)), w)
	first := mat.Given(s.call.First)
	switch {
	case !b.cfg.First: // v + (first - v) sigmoid(share)
		asm.Sigmoid(ke, ke)
		asm.Scale(work, -1, v)
		asm.Add(work, work, mat.Row(s.call.First, s.from+t))
		asm.Mul(work, work, ke)
		asm.Add(v, v, work)
	case first:
		copy(mat.Row(s.call.First, s.from+t), v)
	}
	asm.Sigmoid(eta, eta)
	// kappa
	asm.Mul(work, k, b.kk)
	for h := 0; h < b.dim; h += b.cfg.HeadDim {
		head := work[h : h+b.cfg.HeadDim]
		by := dense.InverseLength(head)
		if b.cfg.KeyEps != 0 {
			by = float32(1 / math.Sqrt(float64(asm.Dot(head, head))+b.cfg.KeyEps))
		}
		asm.Scale(head, by, head)
	}
	asm.Mul(ke, work, eta)
	// k (1 + (eta - 1) k_a) = k + k k_a eta - k k_a
	for i, e := range eta {
		k[i] += float32(k[i] * float32((e-1)*b.ka[i]))
	}
	asm.Scale(eta, -1, work)
}

// finishRWKV7 norms each head of rows, adds the bonus of the token itself, gates and
// projects them.
func (s *blockWork) finishRWKV7(worker, i int) {
	b, own := s.rwkv, &s.own[worker]
	from, to := s.taskRows(i)
	own[0].size(1, b.dim)
	work, width := own[0].data[:b.dim], b.cfg.HeadDim
	for t := from; t < to; t++ {
		y, v := mat.Row(s.rows[rowsY].General, t), mat.Row(s.rows[rowsV].General, t)
		asm.Mul(work, mat.Row(s.rows[rowsR].General, t), mat.Row(s.rows[rowsK].General, t))
		for h := 0; h < b.dim; h += width {
			head := y[h : h+width]
			asm.LayerNorm(head, head, b.normWeight[h:h+width], b.normBias[h:h+width], float32(b.cfg.NormEps))
			asm.Axpy(head, asm.Dot(work[h:h+width], b.rk[h:h+width]), v[h:h+width])
		}
		asm.Mul(y, y, mat.Row(s.rows[rowsG].General, t))
	}
	b.output.ForwardIn(&s.group, mat.Rows(s.out(), from, to), mat.Rows(s.rows[rowsY].General, from, to))
}
