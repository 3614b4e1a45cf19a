package kernel

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/mat"
)

// DeltaStep is a token of a recurrence whose state is a matrix, of which something is
// erased before it is written to. With s the state [states, width],
//
//	r[j] = sum over i of Read[i] s[i][j]
//	u[j] = Beta (V[j] - r[j])
//	y[j] = sum over i of Ask[i] s[i][j] + KQ u[j]
//	s[i][j] = Decay[i] s[i][j] + K[i] u[j].
//
// Where B is given u is V, and what was read is written with it:
//
//	y[j] = sum over i of Ask[i] s[i][j] + KQ V[j] + BQ r[j]
//	s[i][j] = Decay[i] s[i][j] + K[i] V[j] + B[i] r[j].
type DeltaStep struct {
	Read, Ask, Decay, K, B []float32 // [states]; B may be nil
	V                      []float32 // [width]
	Beta, KQ, BQ           float32
}

// Run makes the step. y [width] may be V, and overlaps no other argument. width is at most
// 32. It costs 7 flop for each element of s, or 9.
func (d *DeltaStep) Run(y []float32, s blas32.General) {
	const op = "kernel: DeltaStep"
	CheckMatrix(op, "s", s, len(d.K), len(y))
	CheckLen(op, "Read", len(d.Read), len(d.K))
	CheckLen(op, "Ask", len(d.Ask), len(d.K))
	CheckLen(op, "Decay", len(d.Decay), len(d.K))
	CheckLen(op, "V", len(d.V), len(y))
	if d.B != nil {
		CheckLen(op, "B", len(d.B), len(d.K))
	}
	if len(y) > deltaWidth {
		Panicf("%s: %d columns, want at most %d", op, len(y), deltaWidth)
	}
	if mat.OverlapVectors(y, Extent(s)) {
		Panicf("%s: y overlaps s", op)
	}
	tier := isa.Active()
	switch {
	case len(y) == 0:
	case tier == isa.Generic || len(d.K) == 0:
		d.generic(y, s)
	case d.B != nil:
		deltaPairStepSIMD(tier, len(y), len(d.K), &s.Data[0], 4*s.Stride, &d.Read[0], &d.Ask[0], &d.Decay[0], &d.K[0], &d.V[0], &y[0], d.KQ, &d.B[0], d.BQ)
	default:
		deltaStepSIMD(tier, len(y), len(d.K), &s.Data[0], 4*s.Stride, &d.Read[0], &d.Ask[0], &d.Decay[0], &d.K[0], &d.V[0], &y[0], d.KQ, d.Beta)
	}
}

// deltaWidth is the most columns of a DeltaStep.
const deltaWidth = 32

func (d *DeltaStep) generic(y []float32, s blas32.General) {
	var sums [2 * deltaWidth]float32
	n := len(y)
	r, u := sums[:n], sums[deltaWidth:][:n]
	for i, p := range d.Read {
		q := d.Ask[i]
		row := s.Data[i*s.Stride:][:n]
		r, u := r[:len(row)], u[:len(row)]
		for j, x := range row {
			r[j] += float32(p * x)
			u[j] += float32(q * x)
		}
	}
	if d.B != nil {
		v := d.V
		for i, k := range d.K {
			decay, b := d.Decay[i], d.B[i]
			row := s.Data[i*s.Stride:][:n]
			r, v := r[:len(row)], v[:len(row)]
			for j, x := range row {
				row[j] = float32(decay*x) + float32(k*v[j]) + float32(b*r[j])
			}
		}
		for j := range y {
			y[j] = u[j] + float32(d.KQ*v[j]) + float32(d.BQ*r[j])
		}
		return
	}
	for j, v := range d.V {
		w := float32(d.Beta * (v - r[j]))
		y[j] = u[j] + float32(d.KQ*w)
		r[j] = w
	}
	for i, k := range d.K {
		decay := d.Decay[i]
		row := s.Data[i*s.Stride:][:n]
		w := r[:len(row)]
		for j, x := range row {
			row[j] = float32(decay*x) + float32(k*w[j])
		}
	}
}
