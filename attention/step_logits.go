package attention

import (
	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/tile"
	"gonum.org/v1/gonum/blas/blas32"
)

// adjust makes logits of the products of one key head: softcap, biases, log-weights, and -Inf for hidden keys.
func (w *stepWork) adjust(s blas32.General, h int) {
	d, j := w.d, w.j
	cfg, c := &d.op.cfg, &d.call
	group := d.groupOf(j)
	if cfg.Softcap > 0 {
		for i := range s.Rows {
			row := mat.Row(s, i)
			asm.Softcap(row, cfg.Softcap, row)
		}
	}
	for n := range w.pieces {
		p := &w.pieces[n]
		if j.source > 0 {
			w.addLogWeights(p, s, h)
			w.addExtraWeights(p, s, h)
			w.hide(s, n)
			continue
		}
		for _, b := range [...]Bias{cfg.Bias, c.Bias} {
			if b != nil {
				w.perHeadRuns(p, s, h, b.AddTo)
			}
		}
		w.addLogWeights(p, s, h)
		if c.Mask != nil {
			w.perHeadRuns(p, s, h, c.Mask.Hide)
		}
		w.hide(s, n)
		if c.Tree == nil || p.pos < j.base {
			continue
		}
		for i := range s.Rows {
			row := mat.Part(s, i, p.tile, p.n)
			for k := range row {
				if !d.seesNode(j, i/group, p.pos+k-j.base) {
					row[k] = tile.NegInf
				}
			}
		}
	}
}

// hide takes out what a range of a piece's keys leaves out for each query.
func (w *stepWork) hide(s blas32.General, n int) {
	p, queries, group := &w.pieces[n], w.j.queries(), w.d.groupOf(w.j)
	if p.open {
		return
	}
	for i := range s.Rows {
		row := mat.Part(s, i, p.tile, p.n)
		kernel.Hide(row[:w.from[n*queries+i/group]])
		kernel.Hide(row[w.to[n*queries+i/group]:])
	}
}

// addLogWeights adds those that a state keeps with its keys.
func (w *stepWork) addLogWeights(p *piece, s blas32.General, h int) {
	if len(p.b.weights) == 0 {
		return
	}
	weights := p.b.logWeights(h, p.row, p.n)
	for i := range s.Rows {
		row := mat.Part(s, i, p.tile, p.n)
		asm.Add(row, row, weights)
	}
}

// addExtraWeights adds the log-weights of an Extra, [keys, 1 or heads].
func (w *stepWork) addExtraWeights(p *piece, s blas32.General, h int) {
	src := &w.d.probe.src[w.j.source]
	m := src.weights
	if m.Rows == 0 {
		return
	}
	key := src.offsets[w.j.seq] + p.first
	for i := range s.Rows {
		row := mat.Part(s, i, p.tile, p.n)
		for k := range row {
			row[k] += mat.Part(m, key+k, min(h, m.Cols-1), 1)[0]
		}
	}
}

// perHead calls f for the part of s that belongs to a piece, each head that reads h
// by itself, and each run of keys that follow each other. Nodes of a tree stand at
// positions of their own, and go one by one.
func (w *stepWork) perHeadRuns(p *piece, s blas32.General, h int, f func(s blas32.General, head int, query, key int64)) {
	d, j := w.d, w.j
	group := d.groupOf(j)
	for g := range group {
		m := blas32.General{Rows: j.queries(), Cols: p.n, Stride: s.Stride * group, Data: s.Data[g*s.Stride+p.tile:]}
		if d.call.Tree == nil {
			p.runs(func(i, n int) { f(mat.Columns(m, i, n), h*group+g, int64(j.first), int64(p.at(i))) })
			continue
		}
		for i := range m.Rows {
			one := mat.Rows(m, i, i+1)
			query := int64(d.queryPosition(j, i))
			if p.pos < j.base {
				p.runs(func(i, n int) { f(mat.Columns(one, i, n), h*group+g, query, int64(p.at(i))) })
				continue
			}
			for k := range p.n {
				f(mat.Columns(one, k, 1), h*group+g, query, int64(j.base+d.depth[p.pos+k-j.base]))
			}
		}
	}
}
