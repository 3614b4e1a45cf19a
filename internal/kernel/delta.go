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
	Keep                   bool           // nothing is erased: Read is zeros
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
	d.sums(r, u, mat.Row(d.Read, t), ask, s)
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

// sums adds to r and u what read and ask read from s, row after row.
func (d *DeltaSteps) sums(r, u, read, ask []float32, s blas32.General) {
	n, i := len(r), 0
	u = u[:n]
	row := func(i int) []float32 { return s.Data[i*s.Stride:][:n] }
	for ; i+4 <= len(read); i += 4 { // four rows, so that sums wait in registers
		a, b, c, e := row(i), row(i+1), row(i+2), row(i+3)
		p, q := (*[4]float32)(read[i:]), (*[4]float32)(ask[i:])
		q0, q1, q2, q3 := q[0], q[1], q[2], q[3]
		b, c, e = b[:len(a)], c[:len(a)], e[:len(a)]
		u := u[:len(a)]
		for j, x := range a {
			u[j] = u[j] + float32(q0*x) + float32(q1*b[j]) + float32(q2*c[j]) + float32(q3*e[j])
		}
		if d.Keep {
			continue
		}
		p0, p1, p2, p3 := p[0], p[1], p[2], p[3]
		r := r[:len(a)]
		for j, x := range a {
			r[j] = r[j] + float32(p0*x) + float32(p1*b[j]) + float32(p2*c[j]) + float32(p3*e[j])
		}
	}
	for ; i < len(read); i++ {
		p, q := read[i], ask[i]
		for j, x := range row(i) {
			u[j] += float32(q * x)
			if !d.Keep {
				r[j] += float32(p * x)
			}
		}
	}
}
