package attention

import "github.com/subquad/subquad/asm"

// Tokens that stand alone, as a Selection, a Keep or small pages leave them, are copied
// into a few rows of working memory, from which kernels read them as if they had
// stood there: a call for each of them would cost ten times what reading it does.

// gatherBelow is the length of pieces, in tokens, from which on they are read where they
// stand.
const gatherBelow = 16

// reserveGathered makes room for what the worker may gather.
func (w *stepWork) reserveGathered() {
	a := w.d.op
	for i := range w.d.jobs {
		j := &w.d.jobs[i]
		if !j.short {
			continue
		}
		cfg := StateConfig{Format: j.st.cfg.Format, SharedValues: j.st.cfg.SharedValues}
		room := &w.rooms[cfg.Format]
		probe := store{format: cfg.Format, heads: a.cfg.KVHeads, dim: a.cfg.HeadDim}
		rows := w.d.few(&probe)
		if !cfg.SharedValues {
			probe.dim = a.cfg.ValueDim
			rows = max(rows, w.d.few(&probe))
		}
		rows = min(rows, a.sizes.StepTile)
		if *room == nil || (*room).shared != cfg.SharedValues || (*room).tokens() < rows {
			*room = a.newBlock(&cfg, rows)
		}
		if cap(w.list) < rows {
			w.list = make([]int64, rows)
		}
	}
}

// shortPieces returns how many pieces from piece i on are gathered together, and how many
// rows they have: at most so many, of one state, and no nodes of a tree.
func (w *stepWork) shortPieces(i, most int) (pieces, rows int) {
	d, j := w.d, w.j
	if !j.short {
		return 0, 0
	}
	most = min(most, d.op.sizes.StepTile)
	for ; i < len(w.pieces); i++ {
		p := &w.pieces[i]
		if p.n >= gatherBelow || rows+p.n > most || d.call.Tree != nil && p.pos >= j.base {
			break
		}
		pieces++
		rows += p.n
	}
	return pieces, rows
}

// gather copies the keys or values of pieces.
func (w *stepWork) gather(pieces []piece, of func(*block) *store) {
	b := w.rooms[w.j.st.cfg.Format]
	to, at := of(b), 0
	to.turned = false
	w.list = w.list[:cap(w.list)]
	for i := range pieces {
		p := &pieces[i]
		to.gatherRows(at, of(p.b), p.row, p.n, w.heads[0], w.heads[1])
		for k := range p.n {
			w.list[at+k] = int64(p.at(k))
		}
		at += p.n
	}
	w.gathered = piece{span: span{b: b, n: at, pos: pieces[0].pos, list: w.list[:at]}, tile: pieces[0].tile}
}

// gatherRows copies n rows of some heads of another store of the kind.
func (s *store) gatherRows(at int, from *store, row, n, lo, hi int) {
	cols := (hi - lo) * s.dim
	for i := range n {
		to, begin := (at+i)*s.stride+lo*s.dim, (row+i)*from.stride+lo*s.dim
		switch s.format {
		case asm.Float32:
			copy(s.float32[to:][:cols], from.float32[begin:])
		case asm.Int8:
			copy(s.int8[to:][:cols], from.int8[begin:])
		default:
			copy(s.half[to:][:cols], from.half[begin:])
		}
	}
	if s.format != asm.Int8 {
		return
	}
	for p := range s.parts() {
		for h := lo; h < hi; h++ {
			copy(s.scales(p, h, at, n), from.scales(p, h, row, n))
		}
	}
	s.turned = s.turned || from.turned
}
