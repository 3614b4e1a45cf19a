package attention

import "sort"

// piece is the part of a tile that stands in one span.
type piece struct {
	span       // the tokens of the piece, as if they were a span of their own
	index int  // of the span that it is a part of, in d.spans
	tile  int  // number of the first token in the tile
	open  bool // every query sees all of it, as far as a range can tell
}

// cutOut returns n of a span's tokens from token i on.
func (x *span) cutOut(i, n int) span {
	p := *x
	p.row, p.n, p.first, p.pos = x.row+i, n, x.first+i, x.at(i)
	if !x.named {
		p.order += i
	}
	if x.list != nil {
		p.list = x.list[i:][:n]
	}
	return p
}

// cut finds the pieces of a tile and tells whether any query sees any of them.
func (w *stepWork) cut(from, to int) (seen bool) {
	d, j := w.d, w.j
	spans := d.spans[j.spans[0]:j.spans[1]]
	w.pieces, w.from, w.to = w.pieces[:0], w.from[:0], w.to[:0]
	i := sort.Search(len(spans), func(i int) bool { return spans[i].first+spans[i].n > from })
	for t := from; t < to; {
		x := &spans[i]
		at := t - x.first
		n := min(x.n-at, to-t)
		if b := x.before(int64(j.base)); d.call.Tree != nil && j.source == 0 && at < b && at+n > b {
			n = b - at // nodes of the tree are pieces of their own
		}
		w.pieces = append(w.pieces, piece{span: x.cutOut(at, n), index: j.spans[0] + i, tile: t - from})
		if t += n; at+n == x.n {
			i++
		}
	}
	for i := range w.pieces {
		p := &w.pieces[i]
		p.open = true
		for q := range j.queries() {
			f, t := d.seenRange(j, &p.span, q)
			w.from, w.to = append(w.from, f), append(w.to, t)
			seen = seen || f < t
			p.open = p.open && f == 0 && t == p.n
		}
	}
	return seen
}

// seenRange is what of a span, or a piece of one, a query sees as far as a range can
// tell, counted from its first key.
func (d *stepRun) seenRange(j *job, x *span, query int) (from, to int) {
	at, tree := d.queryPosition(j, query), d.call.Tree != nil && x.pos >= j.base
	to = x.n
	if j.source > 0 {
		if see := d.probe.src[j.source].visible; see != nil {
			f, t := see(int64(at))
			from, to = x.before(f), x.before(t)
		}
		return from, max(from, to)
	}
	if !tree {
		to = x.before(int64(at) + 1)
		if j.window > 0 && !x.kept {
			from = x.before(int64(at - j.window + 1))
		}
		if d.call.Visible != nil {
			f, t := d.call.Visible(int64(at))
			from, to = max(from, x.before(f)), min(to, x.before(t))
		}
	}
	return from, max(from, to)
}

// inSight is how many keys a query sees.
func (d *stepRun) countInSight(j *job, query int) (n int) {
	for i := j.spans[0]; i < j.spans[1]; i++ {
		x := &d.spans[i]
		p := x.cutOut(0, x.n)
		if d.call.Tree != nil && j.source == 0 && x.end() > j.base {
			p = x.cutOut(0, x.before(int64(j.base)))
			for k := range j.total - j.base {
				if pos := j.base + k; pos >= x.pos && pos < x.end() && d.seesNode(j, query, k) {
					n++
				}
			}
		}
		from, to := d.seenRange(j, &p, query)
		n += to - from
	}
	return n
}

// seesNode tells whether a query sees a node of the tree, masks apart.
func (d *stepRun) seesNode(j *job, query, node int) bool {
	if !d.sees(j.node+query, node) {
		return false
	}
	at, key := d.queryPosition(j, query), j.base+d.depth[node]
	if j.window > 0 && key < at-j.window+1 && !j.st.keeps(key) {
		return false
	}
	if d.call.Visible != nil {
		f, t := d.call.Visible(int64(at))
		return int64(key) >= f && int64(key) < t
	}
	return true
}
