package kernel

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/mat"
)

// DeltaSteps are tokens of a recurrence whose state is a matrix, of which something is
// erased before it is written to. With s the state [states, width], for each token t
//
//	r[j] = sum over i of Read[t][i] s[i][j]
//	u[j] = Beta[t] (V[t][j] - r[j])
//	y[t][j] = sum over i of Ask[t][i] s[i][j] + KQ[t] u[j]
//	s[i][j] = Decay[t][i] s[i][j] + K[t][i] u[j].
//
// Where B is given u is V, and what was read is written with it:
//
//	y[t][j] = sum over i of Ask[t][i] s[i][j] + KQ[t] V[t][j] + BQ[t] r[j]
//	s[i][j] = Decay[t][i] s[i][j] + K[t][i] V[t][j] + B[t][i] r[j].
type DeltaSteps struct {
	Read, Ask, Decay, K, B blas32.General // [tokens, states]; B may be the zero value
	V                      blas32.General // [tokens, width]
	Beta, KQ, BQ           []float32      // [tokens]
}

// Run makes the steps. y [tokens, width] may be V, and overlaps no other argument. width is
// at most 32. It costs 7 flop for each token and element of s, or 9.
func (d *DeltaSteps) Run(y, s blas32.General) {
	const op = "kernel: DeltaSteps"
	n, states, pair := y.Rows, s.Rows, d.B.Data != nil
	CheckMatrix(op, "s", s, states, y.Cols)
	CheckMatrix(op, "y", y, n, y.Cols)
	CheckMatrix(op, "V", d.V, n, y.Cols)
	CheckMatrix(op, "Read", d.Read, n, states)
	CheckMatrix(op, "Ask", d.Ask, n, states)
	CheckMatrix(op, "Decay", d.Decay, n, states)
	CheckMatrix(op, "K", d.K, n, states)
	CheckLen(op, "KQ", len(d.KQ), n)
	if pair {
		CheckMatrix(op, "B", d.B, n, states)
		CheckLen(op, "BQ", len(d.BQ), n)
	} else {
		CheckLen(op, "Beta", len(d.Beta), n)
	}
	if y.Cols > deltaWidth {
		Panicf("%s: %d columns, want at most %d", op, y.Cols, deltaWidth)
	}
	if mat.Overlap(y, s) {
		Panicf("%s: y overlaps s", op)
	}
	if y.Cols == 0 {
		return
	}
	tier := isa.Active()
	for t := range n {
		row := func(m *blas32.General) *float32 { return &m.Data[t*m.Stride] }
		switch {
		case tier == isa.Generic || states == 0:
			d.generic(t, mat.Row(y, t), s)
		case pair:
			deltaPairStepSIMD(tier, y.Cols, states, &s.Data[0], 4*s.Stride, row(&d.Read), row(&d.Ask), row(&d.Decay), row(&d.K), row(&d.V), row(&y), d.KQ[t], row(&d.B), d.BQ[t])
		default:
			deltaStepSIMD(tier, y.Cols, states, &s.Data[0], 4*s.Stride, row(&d.Read), row(&d.Ask), row(&d.Decay), row(&d.K), row(&d.V), row(&y), d.KQ[t], d.Beta[t])
		}
	}
}

// deltaWidth is the most columns of DeltaSteps.
const deltaWidth = 32

func (d *DeltaSteps) generic(t int, y []float32, s blas32.General) {
	var sums [2 * deltaWidth]float32
	n := len(y)
	r, u := sums[:n], sums[deltaWidth:][:n]
	v, k, decay, ask := mat.Row(d.V, t), mat.Row(d.K, t), mat.Row(d.Decay, t), mat.Row(d.Ask, t)
	for i, p := range mat.Row(d.Read, t) {
		q := ask[i]
		row := s.Data[i*s.Stride:][:n]
		r, u := r[:len(row)], u[:len(row)]
		for j, x := range row {
			r[j] += float32(p * x)
			u[j] += float32(q * x)
		}
	}
	if d.B.Data != nil {
		b := mat.Row(d.B, t)
		for i, k := range k {
			decay, b := decay[i], b[i]
			row := s.Data[i*s.Stride:][:n]
			r, v := r[:len(row)], v[:len(row)]
			for j, x := range row {
				row[j] = float32(decay*x) + float32(k*v[j]) + float32(b*r[j])
			}
		}
		for j := range y {
			y[j] = u[j] + float32(d.KQ[t]*v[j]) + float32(d.BQ[t]*r[j])
		}
		return
	}
	for j, v := range v {
		w := float32(d.Beta[t] * (v - r[j]))
		y[j] = u[j] + float32(d.KQ[t]*w)
		r[j] = w
	}
	for i, k := range k {
		decay := decay[i]
		row := s.Data[i*s.Stride:][:n]
		w := r[:len(row)]
		for j, x := range row {
			row[j] = float32(decay*x) + float32(k*w[j])
		}
	}
}
