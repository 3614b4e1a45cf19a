package cca

import (
	"context"
	"math"
	"sort"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/scratch"
)

// pooler is what one worker needs to pool groups.
type pooler struct {
	k, v    [][]float32 // rows of the group's members: tokens, or cores of the level below
	weights []float32
}

// coreLevel is the cores of a level in a call.
type coreLevel struct {
	k, v    blas32.General
	first   int64 // index of the sequence's first, where there is a state
	offsets []int // of the sequences, in rows

	from     int // the first row that is to be pooled
	data     [2][]float32
	weights  []float32 // log-weights
	segments [2][1]blas32.General
}

// groupsPerTask is how many groups a worker pools at a time.
const groupsPerTask = 16

// poolLevels pools all groups of all levels.
func (r *run) poolLevels(ctx context.Context) error {
	c := r.op
	for r.level = range r.levels {
		l := &r.levels[r.level]
		n := l.k.Rows - l.from
		members := growth
		if r.level == 0 {
			members = c.cfg.Group
		}
		workers := c.workersFor(r.call.workers, int64(min(float64(n)*float64(members*c.cfg.Heads*(c.cfg.HeadDim+c.cfg.ValueDim)), math.MaxInt32)))
		for len(r.poolers) < workers {
			r.poolers = append(r.poolers, pooler{})
		}
		if err := r.group.Run(ctx, workers, (n+groupsPerTask-1)/groupsPerTask, r.pool); err != nil {
			return check.Wrap(ctx, "cca", err)
		}
	}
	return nil
}

// poolTask pools some groups of the present level.
func (r *run) poolTask(worker, task int) {
	l := &r.levels[r.level]
	from := l.from + task*groupsPerTask
	for row := from; row < min(from+groupsPerTask, l.k.Rows); row++ {
		r.poolers[worker].pool(r, row)
	}
}

// pool pools the group of one row of the present level's cores.
func (p *pooler) pool(r *run, row int) {
	c, l := r.op, &r.levels[r.level]
	b := sort.SearchInts(l.offsets, row+1) - 1
	group := l.first + int64(row-l.offsets[b])
	p.k, p.v = p.k[:0], p.v[:0]
	if r.level == 0 {
		for j := range int64(c.cfg.Group) {
			k, v := r.token(b, group*int64(c.cfg.Group)+j)
			p.k, p.v = append(p.k, k), append(p.v, v)
		}
	} else {
		below := &r.levels[r.level-1]
		for j := range int64(growth) {
			at := below.offsets[b] + int(group*growth+j-below.first)
			p.k = append(p.k, below.k.Data[at*below.k.Stride:])
			p.v = append(p.v, below.v.Data[at*below.v.Stride:])
		}
	}
	last := (group+1)*c.levels[r.level].size - 1
	q := r.query(b, last)
	dk, dv, cores := c.cfg.HeadDim, c.cfg.ValueDim, c.coreHeads()
	for h := range cores {
		from := h
		if r.level == 0 {
			from = h / (cores / c.cfg.KVHeads)
		}
		dstK, dstV := l.k.Data[row*l.k.Stride+h*dk:][:dk], l.v.Data[row*l.v.Stride+h*dv:][:dv]
		switch c.cfg.Pooling {
		case PoolMax:
			largest(dstK, p.k, from*dk)
			largest(dstV, p.v, from*dv)
			continue
		case PoolMean:
			p.weights = scratch.Floats(p.weights, len(p.k))
			for j := range p.weights {
				p.weights[j] = 1 / float32(len(p.k))
			}
		default:
			p.significance(q[h*dk:][:dk], c.cfg.Scale, from*dk)
			if out := r.call.Weights; r.level == 0 && out.Rows > 0 {
				copy(out.Data[row*out.Stride+h*c.cfg.Group:], p.weights)
			}
		}
		weighted(dstK, p.weights, p.k, from*dk)
		weighted(dstV, p.weights, p.v, from*dv)
	}
}

// significance sets the weights to the softmax of q over the members' keys, whose
// head begins at a column.
func (p *pooler) significance(q []float32, scale float32, col int) {
	p.weights = scratch.Floats(p.weights, len(p.k))
	w, top := p.weights, float32(math.Inf(-1))
	for j, k := range p.k {
		w[j] = scale * asm.Dot(q, k[col:][:len(q)])
		top = max(top, w[j]) // keeps NaN
	}
	for j := range w {
		w[j] -= top
	}
	asm.Exp(w, w)
	sum := float32(0)
	for _, x := range w {
		sum += x
	}
	asm.Scale(w, 1/sum, w)
}

// weighted sets dst to the members' weighted sum.
func weighted(dst, w []float32, members [][]float32, col int) {
	for j, m := range members {
		m = m[col:][:len(dst)]
		if j == 0 {
			asm.Scale(dst, w[0], m)
		} else {
			asm.Axpy(dst, w[j], m)
		}
	}
}

// largest sets dst to the members' largest elements; NaN counts as the largest.
func largest(dst []float32, members [][]float32, col int) {
	copy(dst, members[0][col:])
	for _, m := range members[1:] {
		for i, x := range m[col:][:len(dst)] {
			dst[i] = max(dst[i], x)
		}
	}
}
