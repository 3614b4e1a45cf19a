package cca

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/pack"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/tile"
)

// run is the working memory of one call of CCA, and the call itself. What is done at a
// time are some of the call's rows: all of them or, with states, those of one stretch.
// They are pooled, level by level, then the exact kernel attends from their queries.
type run struct {
	op     *CCA
	call   request
	layout pack.Layout[*State]
	list   []*State                              // the states of attention.Call.States
	own    func(name string, state *State) error // checkOwner

	tokens  [3]blas32.General // queries, keys and values of the rows
	offsets []int             // of the sequences, in rows
	states  []*State          // one for each sequence, or none

	levels  []coreLevel
	level   int      // that is being pooled
	poolers []pooler // one for each worker
	group   parallel.Group
	pool    func(worker, task int) // poolTask

	inner    attention.Call
	past     []attention.Past                   // the sequences' tokens: inner.States
	k, v     []blas32.General                   // segments of inner: the state's tokens, then the rows
	wide     []float32                          // float32 copies of the tokens of a state of another format
	at       [1]int64                           // position of the first query: inner.QueryPos
	first    [1]int64                           // position of the first key: inner.KeyPos
	extras   []attention.Extra                  // the levels' cores, then Blocks
	rawSight func(query int64) (from, to int64) // CCA.Window

	blockK, blockV []blas32.General
	blockSight     func(query int64) (from, to int64) // blocksInSight
}

// serve checks a call and does it.
func (r *run) serve(ctx context.Context, c *CCA, call request, state *State, states []*State) error {
	r.op, r.call = c, call
	defer r.forget()
	if r.pool == nil {
		r.pool, r.own, r.rawSight, r.blockSight = r.poolTask, r.checkOwner, c.Window, r.blocksInSight
		r.levels = make([]coreLevel, len(c.levels))
		for l := range c.levels {
			r.levels[l].sight = func(query int64) (from, to int64) { return c.coresOf(l, query) }
		}
	}
	if err := r.check(state, states); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(r.layout.States) > 0 {
		return r.advanceAll(ctx)
	}
	return r.forward(ctx)
}

// forget drops what belongs to the caller.
func (r *run) forget() {
	r.call, r.inner = request{}, attention.Call{}
	r.layout.Clear()
	r.states, r.tokens = nil, [3]blas32.General{}
	clear(r.extras)
	clear(r.past)
	clear(r.k)
	clear(r.v)
	clear(r.blockK)
	clear(r.blockV)
	for l := range r.levels {
		r.levels[l].k, r.levels[l].v = blas32.General{}, blas32.General{}
		r.levels[l].segments = [2][1]blas32.General{}
		clear(r.levels[l].states)
	}
}

// forward attends over whole sequences.
func (r *run) forward(ctx context.Context) error {
	c, call := r.op, &r.call
	r.tokens = [3]blas32.General{call.Q, call.K, call.V}
	r.offsets = append(r.offsets[:0], 0)
	for _, x := range r.layout.Segments {
		r.offsets = append(r.offsets, x.To)
	}
	for i := range r.levels {
		l := &r.levels[i]
		l.begin()
		for _, x := range r.layout.Segments {
			l.add(0, int(c.pooled(i, int64(x.To-x.From)-1)))
		}
		l.reserve(c)
	}
	if err := r.poolLevels(ctx); err != nil {
		return err
	}
	if call.CoreK.Rows > 0 {
		mat.Copy(call.CoreK, r.levels[0].k)
	}
	if call.CoreV.Rows > 0 {
		mat.Copy(call.CoreV, r.levels[0].v)
	}
	r.k, r.v = append(r.k[:0], call.K), append(r.v[:0], call.V)
	r.inner = attention.Call{Dst: call.Dst, Q: call.Q, K: r.k, V: r.v, Offsets: call.Offsets, LSE: call.LSE}
	return r.attend(ctx)
}

// attend runs the exact kernel over r.inner's tokens and the cores: those that were
// pooled or, with states, all that they hold.
func (r *run) attend(ctx context.Context) error {
	c := r.op
	r.inner.Visible, r.inner.Workers = r.rawSight, r.call.workers
	r.extras = r.extras[:0]
	for i := range r.levels {
		l := &r.levels[i]
		e := attention.Extra{Heads: c.coreHeads(), Visible: l.sight}
		cores, first := l.k.Rows, 0 // first is the number of the first core
		if r.states != nil {
			cores, l.states = 0, l.states[:0]
			for _, s := range r.states {
				l.states = append(l.states, s.levels[i])
				cores += s.levels[i].Held()
			}
			first = l.states[0].Len() - l.states[0].Held()
			e.States = l.states
		} else {
			l.segments[0][0], l.segments[1][0] = l.k, l.v
			e.K, e.V, e.Offsets = l.segments[0][:], l.segments[1][:], l.offsets
		}
		if cores == 0 {
			continue
		}
		if w := c.levels[i].weight; w != 0 || len(r.call.Blocks) > 0 {
			l.weights = scratch.Floats(l.weights, cores)
			for j := range l.weights {
				l.weights[j] = w
			}
			hide(l.weights, r.call.Blocks, first)
			e.LogWeights = mat.Of(l.weights, cores, 1)
		}
		r.extras = append(r.extras, e)
	}
	if len(r.call.Blocks) > 0 {
		r.blockK, r.blockV = r.blockK[:0], r.blockV[:0]
		for _, b := range r.call.Blocks {
			r.blockK, r.blockV = append(r.blockK, b.K), append(r.blockV, b.V)
		}
		r.extras = append(r.extras, attention.Extra{K: r.blockK, V: r.blockV, Visible: r.blockSight})
	}
	r.inner.Extra = r.extras
	return named(c.att.Run(ctx, &r.inner))
}

// hide takes the cores of blocks that are seen as they are out of the softmax; the
// weights are those of the cores from number first on.
func hide(weights []float32, blocks []Block, first int) {
	for _, b := range blocks {
		if at := b.Group - first; at >= 0 && at < len(weights) {
			weights[at] = tile.NegInf
		}
	}
}

// blocksInSight returns the tokens of Blocks that a query sees: those of groups
// that have left its window.
func (r *run) blocksInSight(query int64) (from, to int64) {
	n, pooled := 0, r.op.pooled(0, query)
	for n < len(r.call.Blocks) && int64(r.call.Blocks[n].Group) < pooled {
		n++
	}
	return 0, int64(n) * int64(r.op.cfg.GroupSize)
}
