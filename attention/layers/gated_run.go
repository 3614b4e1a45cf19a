package layers

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/dense"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
)

// gatedRun is one call of a Gated, and the memory that calls share.
type gatedRun struct {
	layer   *Gated
	call    GatedCall
	scale   float32
	workers parallel.Group
	memory  []float32   // of the matrices below
	work    [][]float32 // of each worker

	q, k, v  blas32.General // [tokens, D]; k and v not with Cross
	gk, gv   blas32.General // [objects, D], of the grounding tokens
	mixed    blas32.General // [tokens, D], attention
	attend   attention.Call
	segments [4]blas32.General
	extra    [1]attention.Extra

	project, ground, finish func(worker, i int) // blocks of dense.BlockRows rows
}

func blocks(rows int) int { return (rows + dense.BlockRows - 1) / dense.BlockRows }

// block is the rows of block i of m.
func block(m blas32.General, i int) blas32.General {
	return mat.Rows(m, i*dense.BlockRows, min((i+1)*dense.BlockRows, m.Rows))
}

// pass runs a call.
func (r *gatedRun) pass(ctx context.Context, g *Gated, call *GatedCall, objects int) error {
	r.layer, r.call, r.scale = g, *call, 1
	defer func() {
		r.call, r.attend, r.segments, r.extra = GatedCall{}, attention.Call{}, [4]blas32.General{}, [1]attention.Extra{}
		r.gk, r.gv = blas32.General{}, blas32.General{}
	}()
	if r.project == nil {
		r.project, r.ground, r.finish = r.projectBlock, r.groundBlock, r.finishBlock
	}
	if call.Scale != nil {
		r.scale = *call.Scale
	}
	r.reserve(call.X.Rows, objects)
	workers := parallel.Choose(g.cfg.Workers, call.Workers)
	r.work = scratch.Sized(r.work, max(len(r.work), workers))
	if err := r.workers.RunAs(ctx, "layers", workers, blocks(call.X.Rows), r.project); err != nil {
		return err
	}
	if call.Grounding == nil {
		if err := r.workers.RunAs(ctx, "layers", workers, blocks(objects), r.ground); err != nil {
			return err
		}
	}
	if err := check.Wrap(ctx, "layers", g.attention.Run(ctx, r.mix())); err != nil {
		return err
	}
	return r.workers.RunAs(ctx, "layers", workers, blocks(call.X.Rows), r.finish)
}

// reserve cuts the memory of a call.
func (r *gatedRun) reserve(tokens, objects int) {
	d := r.layer.width
	r.memory = scratch.Floats(r.memory, (4*tokens+2*objects)*d)
	rest := r.memory
	take := func(rows int) blas32.General {
		m := mat.Of(rest, rows, d)
		rest = rest[rows*d:]
		return m
	}
	r.q, r.k, r.v, r.mixed = take(tokens), take(tokens), take(tokens), take(tokens)
	if r.call.Grounding != nil {
		r.gk, r.gv = r.call.Grounding.k, r.call.Grounding.v
	} else {
		r.gk, r.gv = take(objects), take(objects)
	}
}

// mix returns the call of attention: all tokens of a sequence and, in the same softmax, its
// grounding tokens.
func (r *gatedRun) mix() *attention.Call {
	c := &r.call
	r.segments = [4]blas32.General{r.k, r.v, r.gk, r.gv}
	r.attend = attention.Call{Dst: r.mixed, Q: r.q, K: r.segments[:1], V: r.segments[1:2], Offsets: c.Offsets, Workers: c.Workers}
	switch {
	case r.layer.cfg.Cross:
		r.attend.K, r.attend.V, r.attend.KOffsets = r.segments[2:3], r.segments[3:], c.ObjectOffsets
	case r.gk.Rows > 0:
		r.extra[0] = attention.Extra{K: r.segments[2:3], V: r.segments[3:], Offsets: c.ObjectOffsets}
		r.attend.Extra = r.extra[:]
	}
	return &r.attend
}

// projectBlock makes queries, and, but with Cross, keys and values.
func (r *gatedRun) projectBlock(worker, i int) {
	g, x := r.layer, block(r.call.X, i)
	w := &r.work[worker]
	*w = scratch.Floats(*w, x.Rows*g.width)
	c := mat.Of(*w, x.Rows, g.width)
	g.norm1.Forward(c, x)
	g.query.ForwardIn(&r.workers, block(r.q, i), c)
	if !g.cfg.Cross {
		g.key.ForwardIn(&r.workers, block(r.k, i), c)
		g.value.ForwardIn(&r.workers, block(r.v, i), c)
	}
}

func (r *gatedRun) groundBlock(worker, i int) {
	r.layer.ground(block(r.gk, i), block(r.gv, i), block(r.call.Objects, i), &r.work[worker])
}

// finishBlock adds attention and the feed-forward layer.
func (r *gatedRun) finishBlock(worker, i int) {
	g, x, dst := r.layer, block(r.call.X, i), block(r.call.Dst, i)
	w := &r.work[worker]
	*w = scratch.Floats(*w, x.Rows*9*g.width)
	y, hidden := mat.Of(*w, x.Rows, g.width), mat.Of((*w)[x.Rows*g.width:], x.Rows, 8*g.width)
	g.out.ForwardIn(&r.workers, y, block(r.mixed, i))
	mat.Copy(dst, x)
	for t := range dst.Rows {
		asm.Axpy(mat.Row(dst, t), r.scale*g.attend, mat.Row(y, t))
	}
	g.norm2.Forward(y, dst)
	normed := block(r.mixed, i) // attention is not needed any more
	mat.Copy(normed, y)
	g.mlp.Forward(&r.workers, y, normed, hidden)
	for t := range dst.Rows {
		asm.Axpy(mat.Row(dst, t), r.scale*g.dense, mat.Row(y, t))
	}
}
