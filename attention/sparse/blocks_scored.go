package sparse

import (
	"context"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/check"
	"github.com/subquad/subquad/internal/scratch"
)

// ChooseScored is Choose for a pattern with TopK that goes by scores of the caller's: of a
// learned gate or an indexer, of the bounds of blocks' keys, of the weights that earlier queries
// gave. Each block of queries has that many heads, 1, KVHeads or Heads: lists, see Choice.Heads.
//
// score sets scores[x] to what block x of keys is worth to a block of queries and a list of it;
// scores has the blocks that the queries see and is 0 before. It is not called where TopK or
// FirstQueries and LastQueries choose all of these. Several goroutines call it, as
// Config.Workers says, in no order. The TopK largest are chosen, of equal ones the earlier; NaN
// goes after all numbers. It costs these calls and a pass over each block's scores; at a time
// as many scores are kept as there are blocks of keys, for each goroutine.
//
// Errors match ErrCall, are those of ctx, or tell of a panic of score; after one choice is as
// before.
func (b *Blocks) ChooseScored(ctx context.Context, choice *Choice, p Pattern, queries, keys, heads int, score func(scores []float32, block, head int)) error {
	cfg := &b.cfg
	switch {
	case ctx == nil:
		return check.Errorf(ErrCall, "sparse: ctx is nil, want a context")
	case score == nil:
		return check.Errorf(ErrCall, "sparse: score is nil, want a function")
	case p.TopK == 0:
		return check.Errorf(ErrCall, "sparse: Pattern.TopK is 0, want how many blocks are chosen by score")
	case heads != 1 && heads != cfg.KVHeads && heads != cfg.Heads:
		return check.Errorf(ErrCall, "sparse: heads is %d, want 1, KVHeads = %d or Heads = %d", heads, cfg.KVHeads, cfg.Heads)
	case queries < 0 || keys < 0:
		return check.Errorf(ErrCall, "sparse: a choice for %d queries and %d keys, want 0 or more", queries, keys)
	}
	return b.choose(ctx, choice, &p, blas32.General{Rows: queries}, blas32.General{Rows: keys}, heads, score)
}

// scoreTask finds the best blocks for one list by the caller's scores.
func (c *chooser) scoreTask(worker, task int) {
	w, top := &c.work[worker], c.p.TopK
	h, a := task/c.queryBlocks, task%c.queryBlocks
	seen := c.seen(a)
	if seen <= top || c.readsAll(a) {
		return
	}
	w.scores = scratch.Sized(w.scores, seen)
	clear(w.scores)
	c.score(w.scores[:seen:seen], a, h)
	w.best(c.tops[task*top:][:top], w.scores)
}
