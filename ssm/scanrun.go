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
	tasks     int
	task      func(worker, i int)
}

// scanWork is what each worker has for itself: dt, dt x and, where they need it, y
// of some rows of its slabs, and B and C where they must be laid out anew.
type scanWork struct{ dt, u, y, gate, b, c []float32 }

// slabWidth is the length of a slab's rows in scratch; a line more than is used
// keeps them from competing for the same cache lines.
const slabWidth = (slabBlocks + 1) * asm.ScanBlock

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
	s.tasks = min(workers, len(op.slabs))
	err := s.group.Run(ctx, workers, s.tasks, s.task)
	if err == nil {
		err = ctx.Err()
	}
	return wrap(err)
}

// scan takes a range of slabs through all segments, some rows at a time: whole
// rows in order of memory first, then each slab by itself.
func (s *scanScratch) scan(worker, i int) {
	op, w := s.op, &s.workers[worker]
	slabs := op.slabs[i*len(op.slabs)/s.tasks : (i+1)*len(op.slabs)/s.tasks]
	const budget = 256 << 10 // floats of dt and u, most of the second cache
	rows := min(max(budget/(2*len(slabs)*slabWidth), 8), Chunk)
	w.dt, w.u = scratch.Floats(w.dt, len(slabs)*rows*slabWidth), scratch.Floats(w.u, len(slabs)*rows*slabWidth)
	w.y, w.gate = scratch.Floats(w.y, rows*slabWidth), scratch.Floats(w.gate, slabWidth)
	size := op.states * asm.ScanBlock
	for _, g := range s.list {
		for t, pos := g.from, g.pos; t < g.to; {
			if s.ctx.Err() != nil {
				return
			}
			n := min(untilBorder(pos, g.to-t), rows)
			for r := range n {
				for k, sl := range slabs {
					at := (k*rows + r) * slabWidth
					s.before(w.dt[at:][:slabWidth], w.u[at:][:slabWidth], sl, t+r, pos+r, g.filter)
				}
			}
			for k, sl := range slabs {
				h := g.values[sl.block*size:][:sl.blocks*size]
				s.blocks(w, sl, k*rows*slabWidth, h, t, n)
				flush(h, pos+n)
			}
			t, pos = t+n, pos+n
		}
	}
}

// before sets dt and u = dt x of a row.
func (s *scanScratch) before(dt, u []float32, sl slab, t, pos int, filter DeltaFilter) {
	op, call := s.op, &s.call
	clear(dt[sl.channels:])
	clear(u[sl.channels:])
	dt, u = dt[:sl.channels], u[:sl.channels]
	op.steps(dt, call.Dt.Data[t*call.Dt.Stride+sl.channel:][:sl.channels], sl.channel)
	if filter != nil {
		filter(pos, sl.channel, dt)
	}
	if call.Filter != nil {
		call.Filter(pos, sl.channel, dt)
	}
	x := call.X.Data[t*call.X.Stride+sl.channel:][:sl.channels]
	asm.Mul(u, dt, x)
	if !s.direct(sl) {
		return
	}
	// y is computed where it belongs, and begins with D x.
	if y := call.Dst.Data[t*call.Dst.Stride+sl.channel:][:sl.channels]; op.skip != nil {
		asm.Mul(y, op.skip[sl.channel:][:sl.channels], x)
	} else {
		clear(y)
	}
}

// direct tells whether a slab's blocks are whole, so that y needs no memory of its
// own.
func (s *scanScratch) direct(sl slab) bool { return sl.channels%asm.ScanBlock == 0 }

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
		dt = dst
	}
	if softplus {
		asm.Softplus(dst, dt)
	} else {
		copy(dst, dt)
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

// blocks scans n rows of a slab, whose dt and u begin at at, and gates the result.
func (s *scanScratch) blocks(w *scanWork, sl slab, at int, h []float32, t0, n int) {
	op := s.op
	y := dense.Columns(dense.Rows(s.call.Dst, t0, t0+n), sl.channel, sl.channels)
	if !s.direct(sl) {
		y = s.own(w, sl, t0, n)
	}
	vectors := op.b != nil || op.c != nil
	b, c := s.shared(&w.b, op.b, s.call.B, sl, t0, n, vectors), s.shared(&w.c, op.c, s.call.C, sl, t0, n, vectors)
	size := op.states * asm.ScanBlock
	block := func(m []float32, stride, i int) blas32.General {
		return blas32.General{Rows: n, Cols: asm.ScanBlock, Stride: stride, Data: m[i*asm.ScanBlock:]}
	}
	for i := range sl.blocks {
		constant := func(m []float32, shared blas32.General) blas32.General {
			if m == nil {
				return shared
			}
			return blas32.General{Rows: n, Cols: size, Data: m[(sl.block+i)*size:][:size]}
		}
		asm.SelectiveScan(block(y.Data, y.Stride, i), block(w.dt[at:], slabWidth, i), block(w.u[at:], slabWidth, i),
			op.a[(sl.block+i)*size:][:size], h[i*size:][:size], constant(op.b, b), constant(op.c, c))
	}
	for t := range n {
		part := func(m blas32.General) []float32 { return m.Data[(t0+t)*m.Stride+sl.channel:][:sl.channels] }
		row, dst := y.Data[t*y.Stride:][:sl.channels], part(s.call.Dst)
		switch {
		case gated(s.call.Z):
			gate := w.gate[:sl.channels]
			asm.SiLU(gate, part(s.call.Z))
			asm.Mul(dst, row, gate)
		case !s.direct(sl):
			copy(dst, row)
		}
	}
}

// own returns memory for y of a slab whose last block is not whole, begun with D x.
func (s *scanScratch) own(w *scanWork, sl slab, t0, n int) blas32.General {
	y := dense.Matrix(w.y, n, slabWidth)
	clear(y.Data)
	if s.op.skip != nil {
		for t := range n {
			asm.Mul(y.Data[t*slabWidth:][:sl.channels], s.op.skip[sl.channel:][:sl.channels], s.call.X.Data[(t0+t)*s.call.X.Stride+sl.channel:][:sl.channels])
		}
	}
	return y
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
	*memory = scratch.Floats(*memory, Chunk*op.states*each)
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
