package cca

import (
	"context"
	"fmt"
	"math"
	"sort"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// pooler is what one worker needs to pool groups.
type pooler struct {
	k, v    [][]float32 // rows of the group's members: tokens, or cores of the level below
	wide    []float32   // float32 copies of members that a state stores in another format
	weights []float32   // of the members
}

// coreLevel is the cores of a level that a call pools, sequence after sequence.
type coreLevel struct {
	k, v    blas32.General // [cores, heads of cores * HeadDim] and [cores, heads of cores * ValueDim]
	data    [2][]float32   // their memory
	first   []int64        // number of each sequence's first core among all of the sequence
	offsets []int          // of the sequences, in rows

	// For the exact kernel.
	weights  []float32                          // log-weights of all cores that are attended to
	segments [2][1]blas32.General               // k and v
	states   []*attention.State                 // of the sequences, in their place
	sight    func(query int64) (from, to int64) // CCA.coresOf
}

// begin makes the level one of no sequences, and add adds a sequence: its cores from
// number first on, as many as cores.
func (l *coreLevel) begin() { l.first, l.offsets = l.first[:0], append(l.offsets[:0], 0) }

func (l *coreLevel) add(first int64, cores int) {
	l.first, l.offsets = append(l.first, first), append(l.offsets, l.offsets[len(l.offsets)-1]+cores)
}

// reserve makes memory for the cores.
func (l *coreLevel) reserve(c *CCA) {
	rows := l.offsets[len(l.offsets)-1]
	_, kCols, vCols := c.CoreShape(0)
	l.data[0], l.data[1] = scratch.Floats(l.data[0], rows*kCols), scratch.Floats(l.data[1], rows*vCols)
	l.k, l.v = mat.Of(l.data[0], rows, kCols), mat.Of(l.data[1], rows, vCols)
}

// groupsPerTask is how many groups a worker pools at a time.
const groupsPerTask = 16

// poolLevels pools all groups of all levels.
func (r *run) poolLevels(ctx context.Context) error {
	c := r.op
	for r.level = range r.levels {
		l := &r.levels[r.level]
		n := l.k.Rows
		if n == 0 {
			continue
		}
		members := growth
		if r.level == 0 {
			members = c.cfg.GroupSize
		}
		workers := c.workersFor(r.call.workers, int64(min(float64(n)*float64(members*c.cfg.Heads*(c.cfg.HeadDim+c.cfg.ValueDim)), math.MaxInt32)))
		for len(r.poolers) < workers {
			r.poolers = append(r.poolers, pooler{})
		}
		if err := r.group.RunAs(ctx, "cca", workers, (n+groupsPerTask-1)/groupsPerTask, r.pool); err != nil {
			return err
		}
	}
	return nil
}

// poolTask pools some groups of the present level.
func (r *run) poolTask(worker, task int) {
	l := &r.levels[r.level]
	from := task * groupsPerTask
	for row := from; row < min(from+groupsPerTask, l.k.Rows); row++ {
		r.poolers[worker].pool(r, row)
	}
}

// pool pools the group of one row of the present level's cores.
func (p *pooler) pool(r *run, row int) {
	c, l := r.op, &r.levels[r.level]
	b := sort.SearchInts(l.offsets, row+1) - 1
	group := l.first[b] + int64(row-l.offsets[b])
	p.gather(r, b, group)
	last := (group+1)*c.levels[r.level].size - 1 // one of the call's tokens
	if r.states != nil {
		last -= r.states[b].length
	}
	q := mat.Row(r.tokens[0], r.offsets[b]+int(last))
	dk, dv, cores := c.cfg.HeadDim, c.cfg.ValueDim, c.coreHeads()
	for h := range cores {
		from := h
		if r.level == 0 {
			from = h / (cores / c.cfg.KVHeads)
		}
		dstK, dstV := mat.Part(l.k, row, h*dk, dk), mat.Part(l.v, row, h*dv, dv)
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
				copy(mat.Part(out, row, h*c.cfg.GroupSize, c.cfg.GroupSize), p.weights)
			}
		}
		weighted(dstK, p.weights, p.k, from*dk)
		weighted(dstV, p.weights, p.v, from*dv)
	}
}

// gather finds the members of a group of sequence b at the present level: the older
// ones in the sequence's state, the others among the call's tokens or what was pooled of
// the level below.
func (p *pooler) gather(r *run, b int, group int64) {
	c := r.op
	p.k, p.v = p.k[:0], p.v[:0]
	k, v, at := r.tokens[1], r.tokens[2], r.offsets[b]
	old, members, heads := int64(0), int64(c.cfg.GroupSize), c.cfg.KVHeads
	var held *attention.State
	if r.states != nil {
		held, old = r.states[b].tokens, r.states[b].length
	}
	if r.level > 0 {
		below := &r.levels[r.level-1]
		k, v, at = below.k, below.v, below.offsets[b]
		old, members, heads = below.first[b], growth, c.coreHeads()
		if r.states != nil {
			held = r.states[b].levels[r.level-1]
		}
	}
	from, to := group*members, (group+1)*members
	p.addHeld(c, held, heads, int(members), from, min(to, old))
	for j := max(from, old); j < to; j++ {
		p.k, p.v = append(p.k, mat.Row(k, at+int(j-old))), append(p.v, mat.Row(v, at+int(j-old)))
	}
}

// addHeld adds members from ... to, which a state holds: where they stand or, of a format
// other than float32, in copies; members is the most that there may be.
func (p *pooler) addHeld(c *CCA, s *attention.State, heads, members int, from, to int64) {
	for from < to {
		g, ok := s.Segment(int(from))
		if !ok {
			panic(fmt.Sprintf("the state does not hold %d", from))
		}
		n := int(min(int64(g.Tokens), to-from))
		k, v, ok := g.Float32()
		if !ok {
			kCols, vCols := heads*c.cfg.HeadDim, heads*c.cfg.ValueDim
			p.wide = scratch.Floats(p.wide, members*(kCols+vCols))
			k, v = mat.Of(p.wide[len(p.k)*kCols:], n, kCols), mat.Of(p.wide[members*kCols+len(p.v)*vCols:], n, vCols)
			widen(k, v, g, heads)
		}
		for j := range n {
			p.k, p.v = append(p.k, mat.Row(k, j)), append(p.v, mat.Row(v, j))
		}
		from += int64(n)
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
