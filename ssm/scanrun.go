package ssm

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
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
	inPlace   bool // dst is x
	ctx       context.Context
	workers   []scanWork
	tasks     int
	task      func(worker, i int)
}

// scanWork is what each worker has for itself: dt of some rows of its slabs and,
// where they need them, y and x of one, and B and C where they must be laid out anew.
type scanWork struct{ dt, y, x, gate, b, c []float32 }

// slabWidth is the length of a slab's rows in scratch; a line more than is used
// keeps them from competing for the same cache lines.
const slabWidth = (slabBlocks + 1) * kernel.ScanBlock

// rows is how many tokens so many slabs take at a time.
func (op *Scan) rows(slabs int) int {
	const budget = 256 << 10 // floats of dt and x, most of the second cache
	return min(max(budget/(2*slabs*slabWidth), 8), Chunk)
}

// ScratchBytes returns the working memory that a call of one sequence holds, at the
// most, besides its arguments, however many tokens it has.
func (op *Scan) ScratchBytes(tokens int) int64 {
	return scratchBytes(int64(op.kind.size) + op.holds(parallel.Workers(op.cfg.Workers)))
}

// holds is what workers have for themselves, in float32.
func (op *Scan) holds(workers int) int64 {
	workers = min(workers, len(op.slabs))
	slabs := (len(op.slabs) + workers - 1) / workers
	rows := op.rows(slabs)
	each := slabs*rows*slabWidth + 2*rows*slabWidth + slabWidth
	if op.b != nil || op.c != nil {
		each += Chunk * op.states * kernel.ScanBlock
	} else if op.states != op.cfg.States {
		each += 2 * Chunk * op.states
	}
	return int64(workers) * int64(each)
}

// run scans the rows of the segments and brings their values up to date.
func (s *scanScratch) run(ctx context.Context, op *Scan, call *ScanCall, list []segment, workers int) error {
	if s.task == nil {
		s.task = s.scan
	}
	s.op, s.call, s.ctx, s.list = op, *call, ctx, list
	s.inPlace = mat.Overlap(call.Dst, call.X)
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
	rows := op.rows(len(slabs))
	w.dt, w.gate = scratch.Floats(w.dt, len(slabs)*rows*slabWidth), scratch.Floats(w.gate, slabWidth)
	w.y, w.x = scratch.Floats(w.y, rows*slabWidth), scratch.Floats(w.x, rows*slabWidth)
	size := op.states * kernel.ScanBlock
	for _, g := range s.list {
		for t, pos := g.from, g.pos; t < g.to; {
			if s.ctx.Err() != nil {
				return
			}
			n := min(untilBorder(pos, g.to-t), rows)
			for r := range n {
				for k, sl := range slabs {
					s.before(w.dt[(k*rows+r)*slabWidth:][:slabWidth], sl, t+r, pos+r, g.filter)
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

// before sets dt of a row, and asks for the rest of what the row needs.
func (s *scanScratch) before(dt []float32, sl slab, t, pos int, filter DeltaFilter) {
	part := func(m blas32.General) []float32 { return m.Data[t*m.Stride+sl.channel:][:sl.channels] }
	kernel.Prefetch(part(s.call.X))
	kernel.Prefetch(part(s.call.Dst))
	clear(dt[sl.channels:])
	dt = dt[:sl.channels]
	s.op.steps(dt, part(s.call.Dt), sl.channel)
	if filter != nil {
		filter(pos, sl.channel, dt)
	}
	if s.call.Filter != nil {
		s.call.Filter(pos, sl.channel, dt)
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

// blocks scans n rows of a slab, whose dt begin at at, and gates the result.
func (s *scanScratch) blocks(w *scanWork, sl slab, at int, h []float32, t0, n int) {
	op := s.op
	rows := func(m blas32.General) blas32.General {
		return mat.Columns(mat.Rows(m, t0, t0+n), sl.channel, sl.channels)
	}
	y, x, whole := rows(s.call.Dst), rows(s.call.X), sl.channels%kernel.ScanBlock == 0
	if !whole {
		y = mat.Of(w.y, n, slabWidth)
	}
	if !whole || s.inPlace {
		from := x
		x = mat.Of(w.x, n, slabWidth)
		clear(x.Data)
		copyRows(x, from)
	}
	vectors := op.b != nil || op.c != nil
	b, c := s.shared(&w.b, op.b, s.call.B, sl, t0, n, vectors), s.shared(&w.c, op.c, s.call.C, sl, t0, n, vectors)
	size := op.states * kernel.ScanBlock
	block := func(m []float32, stride, i int) blas32.General {
		return blas32.General{Rows: n, Cols: kernel.ScanBlock, Stride: stride, Data: m[i*kernel.ScanBlock:]}
	}
	for i := range sl.blocks {
		constant := func(m []float32, shared blas32.General) blas32.General {
			if m == nil {
				return shared
			}
			return blas32.General{Rows: n, Cols: size, Data: m[(sl.block+i)*size:][:size]}
		}
		kernel.SelectiveScan(block(y.Data, y.Stride, i), block(w.dt[at:], slabWidth, i), block(x.Data, x.Stride, i),
			op.da[(sl.block+i)*(size+kernel.ScanBlock):][:size+kernel.ScanBlock], h[i*size:][:size], constant(op.b, b), constant(op.c, c))
	}
	for t := range n {
		part := func(m blas32.General) []float32 { return m.Data[(t0+t)*m.Stride+sl.channel:][:sl.channels] }
		row, dst := y.Data[t*y.Stride:][:sl.channels], part(s.call.Dst)
		switch {
		case gated(s.call.Z):
			gate := w.gate[:sl.channels]
			asm.SiLU(gate, part(s.call.Z))
			asm.Mul(dst, row, gate)
		case !whole:
			copy(dst, row)
		}
	}
}

// shared returns B or C of a slab's group as SelectiveScan reads it: filled up to
// the padded states and, with vectors, repeated for every channel.
func (s *scanScratch) shared(memory *[]float32, constant []float32, m blas32.General, sl slab, t0, n int, vectors bool) blas32.General {
	op := s.op
	if constant != nil {
		return blas32.General{}
	}
	rows := mat.Columns(mat.Rows(m, t0, t0+n), sl.group*op.cfg.States, op.cfg.States)
	if !vectors && op.states == op.cfg.States {
		return rows
	}
	each := 1
	if vectors {
		each = kernel.ScanBlock
	}
	*memory = scratch.Floats(*memory, Chunk*op.states*each)
	out := mat.Of(*memory, n, op.states*each)
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
