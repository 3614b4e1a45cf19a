package ssm

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// scanScratch is the working memory of a call.
type scanScratch struct {
	group     parallel.Group
	sequences sequences
	list      []segment
	op        *Scan
	call      ScanCall
	ctx       context.Context
	workers   []scanWork
	task      func(worker, i int)
}

// scanWork is what each worker has for itself: dt, dt x and y of a slab's rows of
// a chunk, and B and C where they must be laid out anew.
type scanWork struct{ dt, u, y, gate, b, c []float32 }

// rowGap keeps the rows of a chunk from competing for the same cache lines.
const rowGap = 16

// run scans the rows of the segments and brings their values up to date.
func (s *scanScratch) run(ctx context.Context, op *Scan, call *ScanCall, list []segment, workers int) error {
	if s.task == nil {
		s.task = s.scan
	}
	s.op, s.call, s.ctx, s.list = op, *call, ctx, list
	defer func() { s.call, s.ctx, s.list = ScanCall{}, nil, nil }()
	for len(s.workers) < workers {
		s.workers = append(s.workers, scanWork{})
	}
	err := s.group.Run(ctx, workers, len(op.slabs), s.task)
	if err == nil {
		err = ctx.Err()
	}
	return wrap(err)
}

// scan takes one slab through all segments.
func (s *scanScratch) scan(worker, i int) {
	op, w := s.op, &s.workers[worker]
	sl := op.slabs[i]
	width := sl.blocks*asm.ScanBlock + rowGap
	w.dt, w.u = scratch.Floats(w.dt, chunk*width), scratch.Floats(w.u, chunk*width)
	w.y, w.gate = scratch.Floats(w.y, chunk*width), scratch.Floats(w.gate, width)
	size := op.states * asm.ScanBlock
	for _, g := range s.list {
		h := g.values[sl.block*size:][:sl.blocks*size]
		for t, pos := g.from, g.pos; t < g.to; {
			if s.ctx.Err() != nil {
				return
			}
			n := untilBorder(pos, g.to-t)
			s.before(w, sl, t, pos, n)
			s.blocks(w, sl, h, t, n)
			s.after(w, sl, t, n)
			t, pos = t+n, pos+n
			flush(h, pos)
		}
	}
}

// before sets a chunk's dt, dt x and, to begin y with, D x.
func (s *scanScratch) before(w *scanWork, sl slab, t0, pos, n int) {
	op, call := s.op, &s.call
	stride := sl.blocks*asm.ScanBlock + rowGap
	part := func(m blas32.General, t int) []float32 { return m.Data[(t0+t)*m.Stride+sl.channel:][:sl.channels] }
	for t := range n {
		row := func(m []float32) []float32 {
			clear(m[t*stride+sl.channels : (t+1)*stride])
			return m[t*stride:][:sl.channels]
		}
		dt, u, y := row(w.dt), row(w.u), row(w.y)
		op.steps(dt, part(call.Dt, t), sl.channel)
		if call.Filter != nil {
			call.Filter(pos+t, sl.channel, dt)
		}
		x := part(call.X, t)
		asm.Mul(u, dt, x)
		if op.skip != nil {
			asm.Mul(y, op.skip[sl.channel:][:sl.channels], x)
		} else {
			clear(y)
		}
	}
}

// steps sets dst to the steps dt of channels from first on.
func (op *Scan) steps(dst, dt []float32, first int) {
	var bias []float32
	if op.bias != nil {
		bias = op.bias[first:][:len(dt)]
	}
	steps(dst, dt, bias, op.cfg.Softplus, op.cfg.DtMin, op.cfg.DtMax)
}

// steps sets dst = limits(softplus(dt + bias)).
func steps(dst, dt, bias []float32, softplus bool, least, most float32) {
	if bias != nil {
		asm.Add(dst, dt, bias)
	} else {
		copy(dst, dt)
	}
	if softplus {
		asm.Softplus(dst, dst)
	}
	if least != 0 || most != 0 {
		for i, v := range dst { // NaN stays
			if v < least {
				dst[i] = least
			} else if most != 0 && v > most {
				dst[i] = most
			}
		}
	}
}

// blocks scans a chunk.
func (s *scanScratch) blocks(w *scanWork, sl slab, h []float32, t0, n int) {
	op := s.op
	stride := sl.blocks*asm.ScanBlock + rowGap
	vectors := op.b != nil || op.c != nil
	b, c := s.shared(&w.b, op.b, s.call.B, sl, t0, n, vectors), s.shared(&w.c, op.c, s.call.C, sl, t0, n, vectors)
	size := op.states * asm.ScanBlock
	for i := range sl.blocks {
		block := func(m []float32) blas32.General {
			return blas32.General{Rows: n, Cols: asm.ScanBlock, Stride: stride, Data: m[i*asm.ScanBlock:]}
		}
		own := func(m []float32, shared blas32.General) blas32.General {
			if m == nil {
				return shared
			}
			return blas32.General{Rows: n, Cols: size, Data: m[(sl.block+i)*size:][:size]}
		}
		asm.SelectiveScan(block(w.y), block(w.dt), block(w.u), op.a[(sl.block+i)*size:][:size], h[i*size:][:size], own(op.b, b), own(op.c, c))
	}
}

// shared returns B or C of a slab's group as SelectiveScan reads it: filled up to
// the padded states and, with vectors, repeated for every channel.
func (s *scanScratch) shared(memory *[]float32, constant []float32, m blas32.General, sl slab, t0, n int, vectors bool) blas32.General {
	op := s.op
	if constant != nil {
		return blas32.General{}
	}
	rows := dense.Columns(dense.Rows(m, t0, t0+n), sl.group*op.cfg.States, op.cfg.States)
	if !vectors && op.states == op.cfg.States {
		return rows
	}
	each := 1
	if vectors {
		each = asm.ScanBlock
	}
	*memory = scratch.Floats(*memory, chunk*op.states*each)
	out := dense.Matrix(*memory, n, op.states*each)
	clear(out.Data)
	for t := range n {
		for i, v := range rows.Data[t*rows.Stride:][:rows.Cols] {
			for j := range each {
				out.Data[t*out.Stride+i*each+j] = v
			}
		}
	}
	return out
}

// after gates a chunk's y and puts it in its place.
func (s *scanScratch) after(w *scanWork, sl slab, t0, n int) {
	stride := sl.blocks*asm.ScanBlock + rowGap
	for t := range n {
		part := func(m blas32.General) []float32 { return m.Data[(t0+t)*m.Stride+sl.channel:][:sl.channels] }
		y, dst := w.y[t*stride:][:sl.channels], part(s.call.Dst)
		if !gated(s.call.Z) {
			copy(dst, y)
			continue
		}
		gate := w.gate[:sl.channels]
		asm.SiLU(gate, part(s.call.Z))
		asm.Mul(dst, y, gate)
	}
}
