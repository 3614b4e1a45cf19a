package delta

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
)

// gated is what GatedDelta and KDA have in common: a projection, a convolution with a SiLU
// over queries, keys and values, the recurrence, a norm with a gate, a projection. The
// state is the convolution's last inputs [taps-1, channels] and after them that of the
// recurrence.
type gated struct {
	block
	in, out  *dense.Linear  // [wide, Dim], [Dim, Heads ValueDim]
	wide     int            // columns of what in makes, the convolution's first
	taps     blas32.General // [taps, channels]: the convolution, turned around
	rec      *Recurrence
	norm     []float32 // [ValueDim]
	eps      float32
	gates    gates
	double   bool // beta goes to 2
	betaAt   int  // the column of what in makes that beta begins with
	decayDim int  // columns of the decay
}

// Of a gated block's rows: what in makes; convolved; the recurrence's output; decays;
// betas; gates, where they are not in what in makes.
const (
	rowsIn = iota
	rowsConv
	rowsOut
	rowsDecay
	rowsBeta
	rowsGate
)

// gates is what is special to GatedDelta or KDA.
type gates interface {
	// decays sets dst to the decays of rows of what in makes.
	decays(dst, u blas32.General)
	// gate sets row [Heads ValueDim] of a gate, of rows of what in makes.
	gate(s *blockWork, dst, u blas32.General)
}

func (b *gated) workFloats(n, workers int) int64 {
	c := &b.rec.cfg
	rows := b.wide + b.taps.Cols + 2*c.Heads*c.ValueDim + b.decayDim + c.Heads
	return int64(n)*int64(rows) + int64(workers)*int64(b.taps.Rows*b.taps.Cols) + b.rec.workFloats(n, workers)
}

// pass implements body.
func (b *gated) pass(ctx context.Context, s *blockWork) error {
	c := &b.rec.cfg
	s.gated = b
	if s.tasks[0] == nil {
		s.tasks[0], s.tasks[1], s.tasks[2] = s.projectGated, s.middleGated, s.finishGated
	}
	s.rows[rowsIn].size(s.n, b.wide)
	s.rows[rowsConv].size(s.n, b.taps.Cols)
	s.rows[rowsOut].size(s.n, c.Heads*c.ValueDim)
	s.rows[rowsDecay].size(s.n, b.decayDim)
	s.rows[rowsBeta].size(s.n, c.Heads)
	s.rows[rowsGate].size(s.n, c.Heads*c.ValueDim)
	if err := s.eachRows(ctx, s.tasks[0]); err != nil {
		return err
	}
	if err := s.eachRows(ctx, s.tasks[1]); err != nil {
		return err
	}
	window := b.taps.Rows - 1
	s.keepWindow(mat.Columns(s.rows[rowsIn].General, 0, b.taps.Cols), window, 0)
	x, keys := s.rows[rowsConv].General, c.KeyHeads*c.KeyDim
	call := Call{
		Dst: s.rows[rowsOut].General, Q: mat.Columns(x, 0, keys), K: mat.Columns(x, keys, keys), V: mat.Columns(x, 2*keys, c.Heads*c.ValueDim),
		Decay: s.rows[rowsDecay].General, Beta: s.rows[rowsBeta].General,
	}
	if err := s.recur(ctx, b.rec, &call, window*b.taps.Cols); err != nil {
		return err
	}
	return s.eachRows(ctx, s.tasks[2])
}

func (s *blockWork) projectGated(_, i int) {
	from, to := s.taskRows(i)
	s.gated.in.ForwardIn(&s.group, mat.Rows(s.rows[rowsIn].General, from, to), mat.Rows(s.in(), from, to))
}

// middleGated convolves rows, and computes their decays, betas and gates.
func (s *blockWork) middleGated(worker, i int) {
	b := s.gated
	from, to := s.taskRows(i)
	u := mat.Rows(s.rows[rowsIn].General, from, to)
	b.gates.decays(mat.Rows(s.rows[rowsDecay].General, from, to), u)
	b.gates.gate(s, mat.Rows(s.rows[rowsGate].General, from, to), u)
	for t := range u.Rows {
		beta := mat.Row(s.rows[rowsBeta].General, from+t)
		asm.Sigmoid(beta, mat.Part(u, t, b.betaAt, len(beta)))
		if b.double {
			asm.Scale(beta, 2, beta)
		}
	}
	memory := &s.own[worker][0]
	memory.size(b.taps.Rows-1, b.taps.Cols)
	x := mat.Columns(s.rows[rowsIn].General, 0, b.taps.Cols)
	s.before(x, memory.General, from, to, func(from, to int, window blas32.General) {
		dst := mat.Rows(s.rows[rowsConv].General, from, to)
		asm.DepthwiseConv(dst, mat.Rows(x, from, to), b.taps, nil, window)
		for t := range dst.Rows {
			row := mat.Row(dst, t)
			asm.SiLU(row, row)
		}
	})
}

// finishGated norms each head of rows, gates it, and projects them.
func (s *blockWork) finishGated(_, i int) {
	b := s.gated
	from, to := s.taskRows(i)
	width := b.rec.cfg.ValueDim
	y := mat.Rows(s.rows[rowsOut].General, from, to)
	for t := range y.Rows {
		row := mat.Row(y, t)
		for h := 0; h < len(row); h += width {
			asm.RMSNorm(row[h:h+width], row[h:h+width], b.norm, b.eps)
		}
		asm.Mul(row, row, mat.Row(s.rows[rowsGate].General, from+t))
	}
	b.out.ForwardIn(&s.group, mat.Rows(s.out(), from, to), y)
}

// ReadWindow sets conv [taps-1, channels] to the last inputs of the convolution in a
// state, queries, keys and values side by side, the oldest row first. Errors match
// ErrShape or ErrState.
func (b *gated) ReadWindow(conv blas32.General, st *State) error {
	if err := b.kind.acceptRead(st, "conv", conv, b.taps.Rows-1, b.taps.Cols, "channels"); err != nil {
		return err
	}
	mat.Copy(conv, mat.Of(st.fixed.Values, conv.Rows, conv.Cols))
	return nil
}

// ReadStates sets m [Heads KeyDim, ValueDim] to the matrices in a state. Errors match
// ErrShape or ErrState.
func (b *gated) ReadStates(m blas32.General, st *State) error {
	c := &b.rec.cfg
	if err := b.kind.acceptRead(st, "m", m, c.Heads*c.KeyDim, c.ValueDim, "ValueDim"); err != nil {
		return err
	}
	b.rec.readStates(m, st.fixed.Values[(b.taps.Rows-1)*b.taps.Cols:])
	return nil
}
