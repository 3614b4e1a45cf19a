package sparse

import (
	"context"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/parallel"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/topk"
)

// gates choose blocks for queries, or for means of queries, by the means of the blocks' keys.
type gates struct {
	e       *engine
	kvHeads int
	top     int       // blocks that are chosen besides a query's own, at the most
	blocks  int       // that have means
	packed  []float32 // [kvHeads][blocks in panels][dim]
}

// packAtOnce is how many numbers are packed, or added up, between two looks at the context.
const packAtOnce = 1 << 18

// pack takes up the means of blocks, [blocks, kvHeads*dim].
func (g *gates) pack(ctx context.Context, e *engine, kvHeads, top int, means blas32.General) error {
	g.e, g.kvHeads, g.top, g.blocks = e, kvHeads, top, means.Rows
	g.packed = scratch.Floats(g.packed, kvHeads*g.perHead())
	atOnce := g.atOnce(packAtOnce)
	for h := range kvHeads {
		for b := 0; b < means.Rows; b += atOnce {
			if err := ctx.Err(); err != nil {
				return err
			}
			part := mat.Rows(means, b, min(b+atOnce, means.Rows))
			e.tile.PackKeys(g.packed[h*g.perHead():][:g.perHead()], b, mat.Columns(part, h*e.dim, e.dim))
		}
	}
	return nil
}

// atOnce is how many means, in whole panels, have about as many numbers.
func (g *gates) atOnce(numbers int) int {
	panel := g.e.tile.Panel()
	return max(1, numbers/(panel*g.e.dim)) * panel
}

func (g *gates) perHead() int { return g.e.tile.Panels(g.blocks) * g.e.tile.Panel() * g.e.dim }

// gateWork is what choosing needs.
type gateWork struct {
	scores []float32 // [rows of a strip][blocks]
	stream topk.Stream
}

// choose writes the blocks of queries of one head to lists of top each, ascending. Query i has
// before(i) blocks to choose from, the first, no fewer than the query before; lists of queries
// that have no more than top are left as they are: they read all. It ends early when the group
// is stopped.
func (g *gates) choose(group *parallel.Group, w *gateWork, q blas32.General, kvHead int, lists []int32, before func(i int) int) {
	e := g.e
	panel, height, atOnce := e.tile.Panel(), e.tile.Rows(), g.atOnce(packAtOnce/2)
	work := 0 // since the last look at the group
	for i := 0; i < q.Rows; i += height {
		n := min(height, q.Rows-i)
		most := before(i + n - 1)
		if most <= g.top {
			continue
		}
		cols := e.tile.Panels(most) * panel
		w.scores = scratch.Floats(w.scores, n*cols)
		s := mat.Of(w.scores, n, cols)
		keys := g.packed[kvHead*g.perHead():][:cols*e.dim]
		for c := 0; c < cols; c += atOnce {
			part := mat.Columns(s, c, min(atOnce, cols-c))
			e.tile.Scores(part, mat.Rows(q, i, i+n), keys[c*e.dim:][:part.Cols*e.dim])
			if work += n * part.Cols * e.dim / 32; work >= lookAfter {
				if work = 0; group.Stopped() {
					return
				}
			}
		}
		for row := range n {
			if have := before(i + row); have > g.top {
				w.best(lists[(i+row)*g.top:][:g.top], mat.Row(s, row)[:have])
				if work += have; work >= lookAfter {
					if work = 0; group.Stopped() {
						return
					}
				}
			}
		}
	}
}

// best sets list to the places of the largest scores, of which there are more, ascending.
func (w *gateWork) best(list []int32, scores []float32) {
	const few = 32 // as many are ranked faster than they are told from the rest
	if len(list) > few {
		copy(list, w.stream.Ascending(scores, len(list)))
		return
	}
	slices.Sort(topk.Select(list, scores, len(list)))
}
