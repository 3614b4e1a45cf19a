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

// scanWork is the working memory of a call of a Scan, or of that of a Mamba.
type scanWork struct {
	group    parallel.Group
	segments segments // of a call of the Scan itself

	op      *Scan
	call    ScanCall  // a copy of the caller's
	list    []segment // the rows to scan; values are [blocks][states][ScanBlock]
	inPlace bool      // Dst is X
	ctx     context.Context
	workers []slabWork // of each worker
	tasks   int        // each takes a range of the slabs
	task    func(worker, i int)
}

// slabWork is what a worker has for itself.
type slabWork struct {
	dt   []float32 // [slabs][rows][slabWidth]: steps of all slabs of the task
	y, x []float32 // [rows, slabWidth]: of one slab, where it needs them
	gate []float32 // [slabWidth]
	b, c []float32 // [Chunk, states or states ScanBlock]: laid out anew, where needed
}

// slabWidth is the length of a slab's rows in scratch; a line more than is used
// keeps them from competing for the same cache lines.
const slabWidth = (slabBlocks + 1) * kernel.ScanBlock

// rowsTogether is how many tokens that many slabs take at a time.
func (op *Scan) rowsTogether(slabs int) int {
	const budget = 256 << 10 // floats of dt and x, most of the second cache
	return min(max(budget/(2*slabs*slabWidth), 8), Chunk)
}

// workFloats is what workers have for themselves, in float32.
func (op *Scan) workFloats(workers int) int64 {
	workers = min(workers, len(op.slabs))
	slabs := (len(op.slabs) + workers - 1) / workers
	rows := op.rowsTogether(slabs)
	each := slabs*rows*slabWidth + 2*rows*slabWidth + slabWidth
	if op.b != nil || op.c != nil {
		each += Chunk * op.states * kernel.ScanBlock
	} else if op.states != op.cfg.States {
		each += 2 * Chunk * op.states
	}
	return int64(workers) * int64(each)
}

// scan scans the rows of segments and brings their values up to date.
func (s *scanWork) scan(ctx context.Context, op *Scan, call *ScanCall, list []segment, workers int) error {
	if s.task == nil {
		s.task = s.scanSlabs
	}
	s.op, s.call, s.ctx, s.list = op, *call, ctx, list
	s.inPlace = mat.Overlap(call.Dst, call.X)
	defer func() { s.call, s.ctx, s.list = ScanCall{}, nil, nil }()
	for len(s.workers) < workers {
		s.workers = append(s.workers, slabWork{})
	}
	s.tasks = min(workers, len(op.slabs))
	err := s.group.RunAs(ctx, "ssm", workers, s.tasks, s.task)
	if err == nil {
		err = ctx.Err()
	}
	return err
}

// scanSlabs takes a range of slabs through all segments, some rows at a time: whole
// rows in order of memory first, then each slab by itself.
func (s *scanWork) scanSlabs(worker, i int) {
	op, w := s.op, &s.workers[worker]
	slabs := op.slabs[i*len(op.slabs)/s.tasks : (i+1)*len(op.slabs)/s.tasks]
	rows := op.rowsTogether(len(slabs))
	w.dt, w.gate = scratch.Floats(w.dt, len(slabs)*rows*slabWidth), scratch.Floats(w.gate, slabWidth)
	w.y, w.x = scratch.Floats(w.y, rows*slabWidth), scratch.Floats(w.x, rows*slabWidth)
	size := op.states * kernel.ScanBlock
	for _, g := range s.list {
		for t, pos := g.From, g.Pos; t < g.To; {
			if s.ctx.Err() != nil {
				return
			}
			n := min(untilBorder(pos, g.To-t), rows)
			for r := range n {
				for k, sl := range slabs {
					s.slabSteps(w.dt[(k*rows+r)*slabWidth:][:slabWidth], sl, t+r, pos+r, g.filter)
				}
			}
			for k, sl := range slabs {
				h := g.Values[sl.block*size:][:sl.blocks*size]
				s.scanSlab(w, sl, w.dt[k*rows*slabWidth:], h, t, n)
				flush(h, pos+n)
			}
			t, pos = t+n, pos+n
		}
	}
}

// slabSteps sets dt [slabWidth] to the steps of a row, and asks for the rest of what the
// row needs.
func (s *scanWork) slabSteps(dt []float32, sl slab, t, pos int, filter DeltaFilter) {
	op := s.op
	kernel.Prefetch(mat.Part(s.call.X, t, sl.channel, sl.channels))
	kernel.Prefetch(mat.Part(s.call.Dst, t, sl.channel, sl.channels))
	clear(dt[sl.channels:])
	dt = dt[:sl.channels]
	var bias []float32
	if op.bias != nil {
		bias = op.bias[sl.channel:][:len(dt)]
	}
	steps(dt, mat.Part(s.call.Dt, t, sl.channel, sl.channels), bias, op.cfg.Softplus, op.cfg.DtMin, op.cfg.DtMax)
	if filter != nil {
		filter(pos, sl.channel, dt)
	}
	if s.call.Filter != nil {
		s.call.Filter(pos, sl.channel, dt)
	}
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

// scanSlab scans n rows of a slab from row t0 on, with steps dt [n, slabWidth] and states
// h [blocks][states][ScanBlock], and gates the result.
func (s *scanWork) scanSlab(w *slabWork, sl slab, dt, h []float32, t0, n int) {
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
		mat.Copy(x, from)
	}
	vectors := op.b != nil || op.c != nil
	b, c := s.groupRows(&w.b, op.b, s.call.B, sl, t0, n, vectors), s.groupRows(&w.c, op.c, s.call.C, sl, t0, n, vectors)
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
		kernel.SelectiveScan(block(y.Data, y.Stride, i), block(dt, slabWidth, i), block(x.Data, x.Stride, i),
			op.da[(sl.block+i)*(size+kernel.ScanBlock):][:size+kernel.ScanBlock], h[i*size:][:size], constant(op.b, b), constant(op.c, c))
	}
	for t := range n {
		row, dst := mat.Row(y, t)[:sl.channels], mat.Part(s.call.Dst, t0+t, sl.channel, sl.channels)
		switch {
		case mat.Given(s.call.Z):
			gate := w.gate[:sl.channels]
			asm.SiLU(gate, mat.Part(s.call.Z, t0+t, sl.channel, sl.channels))
			asm.Mul(dst, row, gate)
		case !whole:
			copy(dst, row)
		}
	}
}

// groupRows returns n rows of B or C of a slab's group as SelectiveScan reads them:
// filled up to the padded states and, with vectors, repeated for every channel. Of a
// constant one it returns the zero matrix.
func (s *scanWork) groupRows(memory *[]float32, constant []float32, m blas32.General, sl slab, t0, n int, vectors bool) blas32.General {
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
		to := mat.Row(out, t)
		for i, v := range mat.Row(rows, t) {
			for j := range each {
				to[i*each+j] = v
			}
		}
	}
	return out
}
