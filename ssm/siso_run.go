package ssm

import (
	"context"
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/kernel/scalar"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// sisoWork is the working memory of a call of a SISO.
type sisoWork struct {
	group    parallel.Group
	segments segments // the call's sequences and their states
	op       *SISO
	call     SISOCall // a copy of the caller's
	ctx      context.Context
	workers  []turnWork          // of each worker
	task     func(worker, i int) // takes head i through all rows
}

// turnWork is what a worker has for itself, for a head.
type turnWork struct {
	q, k, b []float32 // [N]: turned C and B, and what multiplies an input
	y, row  []float32 // [P]: sums, and a gate
}

// turnHeads takes all rows through the recurrence and brings the segments' values up to
// date.
func (s *sisoWork) turnHeads(ctx context.Context, op *SISO, call *SISOCall, workers int) error {
	if s.task == nil {
		s.task = s.turnHead
	}
	s.op, s.call, s.ctx = op, *call, ctx
	defer func() { s.call, s.ctx = SISOCall{}, nil }()
	for len(s.workers) < workers {
		s.workers = append(s.workers, turnWork{})
	}
	err := s.group.RunAs(ctx, "ssm", workers, op.cfg.Heads, s.task)
	if err == nil {
		err = ctx.Err()
	}
	return err
}

// turnHead takes head h through all segments.
func (s *sisoWork) turnHead(worker, h int) {
	op, w := s.op, &s.workers[worker]
	n, width := op.cfg.States, op.cfg.HeadDim
	w.q, w.k, w.b = scratch.Floats(w.q, n), scratch.Floats(w.k, n), scratch.Floats(w.b, n)
	w.y, w.row = scratch.Floats(w.y, width), scratch.Floats(w.row, width)
	for _, g := range s.segments.list {
		st := op.headOf(g.Values, h)
		for t := g.From; t < g.To; t++ {
			pos := g.Pos + t - g.From
			if pos%Chunk == 0 && s.ctx.Err() != nil {
				return
			}
			s.turnToken(w, st, h, t)
			flush(st.s.Data, pos+1)
		}
	}
}

// turnToken brings a head's state up to date with row t and writes its part of dst.
func (s *sisoWork) turnToken(w *turnWork, st headState, h, t int) {
	op, call := s.op, &s.call
	n, width, angles := op.cfg.States, op.cfg.HeadDim, op.cfg.Angles
	group := h / (op.cfg.Heads / op.cfg.Groups)
	at := func(m blas32.General) float64 { return float64(mat.Row(m, t)[h]) }
	part := func(m blas32.General, index, size int) []float32 { return mat.Part(m, t, index*size, size) }
	dt, a, trap := at(call.Dt), math.Exp(at(call.Decay)), 1/(1+math.Exp(-at(call.Trap)))
	if float32(a) < scalar.Tiny { // as kernel.Flush does
		a = 0
	}

	copy(w.q, part(call.C, group, n))
	copy(w.k, part(call.B, group, n))
	if op.w.CBias != nil {
		asm.Add(w.q, w.q, op.w.CBias[h*n:][:n])
	}
	if op.w.BBias != nil {
		asm.Add(w.k, w.k, op.w.BBias[h*n:][:n])
	}
	for i := range angles {
		angle := math.Mod(float64(st.angles[i])+math.Tanh(float64(part(call.Angles, h, angles)[i]))*math.Pi*dt, 2*math.Pi)
		if angle < 0 {
			angle += 2 * math.Pi
		}
		st.angles[i] = float32(angle)
		sin, cos := math.Sincos(angle)
		for _, v := range [][]float32{w.q, w.k} {
			x, y := float64(v[2*i]), float64(v[2*i+1])
			v[2*i], v[2*i+1] = float32(x*cos-y*sin), float32(x*sin+y*cos)
		}
	}
	x := part(call.X, h, width)
	asm.Scale(w.b, float32((1-trap)*dt*a), st.k)
	kernel.OuterStep(w.y, st.s, float32(a), w.b, w.q, st.x)
	asm.Scale(w.b, float32(trap*dt), w.k)
	kernel.OuterStep(w.y, st.s, 1, w.b, w.q, x)
	copy(st.k, w.k)
	copy(st.x, x)
	if op.w.D != nil {
		asm.Axpy(w.y, op.w.D[h], x)
	}
	dst := part(call.Dst, h, width)
	if mat.Given(call.Z) {
		asm.SiLU(w.row, part(call.Z, h, width))
		asm.Mul(dst, w.y, w.row)
	} else {
		copy(dst, w.y)
	}
}
