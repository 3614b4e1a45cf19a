package sparse

import (
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
	"github.com/subquad/subquad/internal/topk"
)

// gates choose blocks for queries by the blocks' means. A block's mean is needed only of
// queries of later blocks: it is of a whole block.
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

// choose writes the blocks of queries, which are of one head and follow each other from a
// position on, to lists of top each: those before a query's own that it reads, ascending.
// Lists of queries that have no more blocks before them than top are left as they are: they
// read all.
func (g *gates) choose(w *gateWork, q blas32.General, kvHead, at int, lists []int32) {
	e := g.e
	panel, height := e.tile.Panel(), e.tile.Rows()
	for i := 0; i < q.Rows; i += height {
		n := min(height, q.Rows-i)
		most := (at + i + n - 1) / e.block // blocks before the last query's own
		if most <= g.top {
			continue
		}
		cols := e.tile.Panels(most) * panel
		w.scores = scratch.Floats(w.scores, n*cols)
		s := mat.Of(w.scores, n, cols)
		e.tile.Scores(s, mat.Rows(q, i, i+n), g.packed[kvHead*g.perHead():][:cols*e.dim])
		for row := range n {
			if before := (at + i + row) / e.block; before > g.top {
				w.best(lists[(i+row)*g.top:][:g.top], mat.Row(s, row)[:before])
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
