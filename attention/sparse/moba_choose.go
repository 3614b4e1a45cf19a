package sparse

import (
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/mat"
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

// pack takes up the means of blocks, [blocks, kvHeads*dim].
func (g *gates) pack(e *engine, kvHeads, top int, means blas32.General) {
	g.e, g.kvHeads, g.top, g.blocks = e, kvHeads, top, means.Rows
	g.packed = scratch.Floats(g.packed, kvHeads*g.perHead())
	for h := range kvHeads {
		e.tile.PackKeys(g.packed[h*g.perHead():][:g.perHead()], 0, mat.Columns(means, h*e.dim, e.dim))
	}
}

func (g *gates) perHead() int { return g.e.tile.Panels(g.blocks) * g.e.tile.Panel() * g.e.dim }

// gateWork is what choosing needs.
type gateWork struct {
	scores []float32 // [rows of a strip][blocks]
	stream topk.Stream
}

// choose writes the blocks of queries of one head to lists of top each, ascending. Query i has
// before(i) blocks to choose from, the first, no fewer than the query before; lists of queries
// that have no more than top are left as they are: they read all.
func (g *gates) choose(w *gateWork, q blas32.General, kvHead int, lists []int32, before func(i int) int) {
	e := g.e
	panel, height := e.tile.Panel(), e.tile.Rows()
	for i := 0; i < q.Rows; i += height {
		n := min(height, q.Rows-i)
		most := before(i + n - 1)
		if most <= g.top {
			continue
		}
		cols := e.tile.Panels(most) * panel
		w.scores = scratch.Floats(w.scores, n*cols)
		s := mat.Of(w.scores, n, cols)
		e.tile.Scores(s, mat.Rows(q, i, i+n), g.packed[kvHead*g.perHead():][:cols*e.dim])
		for row := range n {
			if have := before(i + row); have > g.top {
				w.best(lists[(i+row)*g.top:][:g.top], mat.Row(s, row)[:have])
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
