package cca

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/attention"
	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/tile"
)

// run is the working memory of one call of CCA, and the call itself.
type run struct {
	op      *CCA
	call    request
	tokens  [3]blas32.General // queries, keys, values: the call's, or with a state some rows of them
	offsets []int
	levels  []coreLevel
	level   int // that is being pooled
	poolers []pooler
	group   parallel.Group
	pool    func(worker, task int)

	inner    attention.Call
	k, v     [2]blas32.General // segments of inner
	at       [1]int64          // QueryPos of inner
	first    [1]int64          // KeyPos
	held     attention.View    // the state's tokens, for few queries
	rawSight func(query int64) (from, to int64)
	sights   []func(query int64) (from, to int64) // of the levels

	extras         []attention.Extra
	blockK, blockV []blas32.General
	blockSight     func(query int64) (from, to int64)
}

func (r *run) run(ctx context.Context, c *CCA, call request) error {
	r.op, r.call = c, call
	defer r.forget()
	if r.pool == nil {
		r.pool, r.rawSight, r.blockSight = r.poolTask, c.Window, r.blocksInSight
		r.levels = make([]coreLevel, len(c.levels))
		for l := range c.levels {
			r.sights = append(r.sights, func(query int64) (from, to int64) {
				from, to = c.cores(l, query)
				return from - r.levels[l].first, to - r.levels[l].first
			})
		}
	}
	if err := r.check(); err != nil {
		return err
	}
	if call.State != nil {
		return r.runState(ctx)
	}
	r.tokens = [3]blas32.General{call.Q, call.K, call.V}
	r.offsets = append(r.offsets[:0], 0, call.Q.Rows)
	if call.Offsets != nil {
		r.offsets = append(r.offsets[:0], call.Offsets...)
	}
	for i := range r.levels {
		l := &r.levels[i]
		l.offsets = append(l.offsets[:0], 0)
		l.first, l.from = 0, 0
		for b := range len(r.offsets) - 1 {
			l.offsets = append(l.offsets, l.offsets[b]+int(c.pooled(i, int64(r.offsets[b+1]-r.offsets[b])-1)))
		}
		rows := l.offsets[len(l.offsets)-1]
		kCols, vCols := c.coreHeads()*c.cfg.HeadDim, c.coreHeads()*c.cfg.ValueDim
		l.data[0], l.data[1] = scratch.Floats(l.data[0], rows*kCols), scratch.Floats(l.data[1], rows*vCols)
		l.k, l.v = mat.Of(l.data[0], rows, kCols), mat.Of(l.data[1], rows, vCols)
	}
	if err := r.poolLevels(ctx); err != nil {
		return err
	}
	for row := range call.CoreK.Rows {
		copy(call.CoreK.Data[row*call.CoreK.Stride:], r.levels[0].k.Data[row*r.levels[0].k.Stride:][:call.CoreK.Cols])
	}
	for row := range call.CoreV.Rows {
		copy(call.CoreV.Data[row*call.CoreV.Stride:], r.levels[0].v.Data[row*r.levels[0].v.Stride:][:call.CoreV.Cols])
	}
	r.k[0], r.v[0] = call.K, call.V
	r.inner = attention.Call{Dst: call.Dst, Q: call.Q, K: r.k[:1], V: r.v[:1], Offsets: call.Offsets, LSE: call.LSE}
	return r.attend(ctx)
}

// forget drops what belongs to the caller.
func (r *run) forget() {
	r.call, r.inner = request{}, attention.Call{}
	clear(r.extras)
	r.held = attention.View{}
	r.k, r.v, r.tokens = [2]blas32.General{}, [2]blas32.General{}, [3]blas32.General{}
	clear(r.blockK)
	clear(r.blockV)
	for l := range r.levels {
		r.levels[l].k, r.levels[l].v = blas32.General{}, blas32.General{}
		r.levels[l].segments = [2][1]blas32.General{}
	}
}

// attend runs the exact kernel over r.inner's tokens and the cores.
func (r *run) attend(ctx context.Context) error {
	c := r.op
	r.inner.Visible, r.inner.Workers = r.rawSight, r.call.workers
	r.extras = r.extras[:0]
	for i := range r.levels {
		l := &r.levels[i]
		if l.k.Rows == 0 {
			continue
		}
		l.segments[0][0], l.segments[1][0] = l.k, l.v
		e := attention.Extra{Heads: c.coreHeads(), K: l.segments[0][:], V: l.segments[1][:], Offsets: l.offsets, Visible: r.sights[i]}
		if w := c.levels[i].weight; w != 0 || len(r.call.Blocks) > 0 {
			l.weights = scratch.Floats(l.weights, l.k.Rows)
			for j := range l.weights {
				l.weights[j] = w
			}
			l.hide(r.call.Blocks)
			e.LogWeights = mat.Of(l.weights, l.k.Rows, 1)
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
	return c.att.Run(ctx, &r.inner)
}

// hide takes the cores of blocks that are seen as they are out of the softmax.
func (l *coreLevel) hide(blocks []Block) {
	for _, b := range blocks {
		if at := int64(b.Group) - l.first; at >= 0 && at < int64(len(l.weights)) {
			l.weights[at] = tile.NegInf
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
	return 0, int64(n) * int64(r.op.cfg.Group)
}

// token returns a token's key and value, counted from its sequence's first.
func (r *run) token(b int, i int64) (k, v []float32) {
	if s := r.call.State; s != nil {
		if i < s.length {
			return s.tokens.Row(i)
		}
		i -= s.length
	} else {
		i += int64(r.offsets[b])
	}
	return mat.Row(r.tokens[1], int(i)), mat.Row(r.tokens[2], int(i))
}

// query returns a token's query, which is one of the call's.
func (r *run) query(b int, i int64) []float32 {
	if s := r.call.State; s != nil {
		i -= s.length
	} else {
		i += int64(r.offsets[b])
	}
	return mat.Row(r.tokens[0], int(i))
}

// check reports what is wrong with the call; nothing has been written.
func (r *run) check() error {
	c, call := r.op, &r.call
	cfg := &c.cfg
	matrix := func(name string, m blas32.General, rows, cols int, what string) error {
		return check.Matrix(attention.ErrShape, "cca", name, m, rows, cols, what)
	}
	if err := matrix("q", call.Q, -1, cfg.Heads*cfg.HeadDim, "Heads*HeadDim"); err != nil {
		return err
	}
	if call.K.Rows > call.Q.Rows && call.K.Rows >= 0 {
		return check.Errorf(attention.ErrShape, "cca: k has %d rows and q %d, want as many: cores are pooled by the queries of their own tokens, so the past of a block of queries comes as a State", call.K.Rows, call.Q.Rows)
	}
	if err := matrix("k", call.K, call.Q.Rows, cfg.KVHeads*cfg.HeadDim, "KVHeads*HeadDim"); err != nil {
		return err
	}
	if err := matrix("v", call.V, call.Q.Rows, cfg.KVHeads*cfg.ValueDim, "KVHeads*ValueDim"); err != nil {
		return err
	}
	if call.Offsets != nil {
		if err := check.Offsets("cca", "Offsets", call.Offsets, call.Q.Rows, -1); err != nil {
			return err
		}
	}
	if len(call.Blocks) > 0 && (call.Offsets != nil || len(c.levels) > 1) {
		return check.Errorf(attention.ErrCall, "cca: Blocks together with Offsets or more than one level")
	}
	for i, b := range call.Blocks {
		if b.Group < 0 || i > 0 && b.Group <= call.Blocks[i-1].Group {
			return check.Errorf(attention.ErrCall, "cca: Blocks[%d].Group is %d, want 0 or more, in rising order", i, b.Group)
		}
		if err := matrix("K of a block", b.K, cfg.Group, cfg.KVHeads*cfg.HeadDim, "KVHeads*HeadDim"); err != nil {
			return err
		}
		if err := matrix("V of a block", b.V, cfg.Group, cfg.KVHeads*cfg.ValueDim, "KVHeads*ValueDim"); err != nil {
			return err
		}
	}
	if s := call.State; s != nil {
		return r.checkState(s)
	}
	rows := 0
	for b := range max(len(call.Offsets), 2) - 1 {
		n := call.Q.Rows
		if call.Offsets != nil {
			n = call.Offsets[b+1] - call.Offsets[b]
		}
		rows += int(c.pooled(0, int64(n)-1))
	}
	return r.checkOutputs(rows)
}

// checkOutputs wants the outputs that have to do with cores in shape, and to
// share nothing. The kernel would look at Dst and LSE too, but after pooling.
func (r *run) checkOutputs(cores int) error {
	cfg, call := &r.op.cfg, &r.call
	_, kCols, vCols := r.op.CoreShape(0)
	if call.Weights.Rows > 0 && cfg.Pooling != PoolSignificance {
		return check.Errorf(attention.ErrCall, "cca: Weights without PoolSignificance")
	}
	outputs := [...]check.Out{
		{Name: "dst", M: call.Dst, Rows: call.Q.Rows, Cols: cfg.Heads * cfg.ValueDim, What: "Heads*ValueDim", Needed: true},
		{Name: "LSE", M: call.LSE, Rows: call.Q.Rows, Cols: cfg.Heads, What: "Heads"},
		{Name: "CoreK", M: call.CoreK, Rows: cores, Cols: kCols, What: "heads of cores * HeadDim"},
		{Name: "CoreV", M: call.CoreV, Rows: cores, Cols: vCols, What: "heads of cores * ValueDim"},
		{Name: "Weights", M: call.Weights, Rows: cores, Cols: cfg.Heads * cfg.Group, What: "Heads*Group"},
	}
	if err := check.Outputs("cca", outputs[:], call.Q, call.K, call.V); err != nil {
		return err
	}
	for _, b := range call.Blocks {
		if err := check.Outputs("cca", outputs[:], b.K, b.V); err != nil {
			return err
		}
	}
	return nil
}
