package attention

import "sort"

// piece is the part of a tile that stands in one span.
type piece struct {
	*span
	index       int // of the span
	row, n, pos int
	at          int // of the tile
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
		if b := j.base - x.pos; d.call.Tree != nil && j.source == 0 && at < b && at+n > b {
			n = b - at // nodes of the tree are pieces of their own
		}
		w.pieces = append(w.pieces, piece{x, j.spans[0] + i, x.row + at, n, x.pos + at, t - from})
		if t += n; at+n == x.n {
			i++
		}
	}
	for i := range w.pieces {
		for q := range j.queries() {
			f, t := d.visible(j, &w.pieces[i], q)
			w.from, w.to = append(w.from, f), append(w.to, t)
			seen = seen || f < t
		}
	}
	return seen
}

// visible is what of a piece a query sees as far as a range can tell, counted from
// the piece's first key.
func (d *decoder) visible(j *job, p *piece, query int) (from, to int) {
	at, tree := d.position(j, query), d.call.Tree != nil && p.pos >= j.base
	to = p.n
	if j.source > 0 {
		if see := d.probe.src[j.source].visible; see != nil {
			f, t := see(int64(at))
			from, to = narrow(from, to, f, t, int64(p.pos))
		}
		return from, max(from, to)
	}
	if !tree {
		to = max(0, min(to, at+1-p.pos))
		if j.window > 0 && !p.kept {
			from = min(max(0, at-j.window+1-p.pos), p.n)
		}
		if d.call.Visible != nil {
			f, t := d.call.Visible(int64(at))
			from, to = narrow(from, to, f, t, int64(p.pos))
		}
	}
	return from, max(from, to)
}

// inSight is how many keys a query sees.
func (d *decoder) inSight(j *job, query int) (n int) {
	for i := j.spans[0]; i < j.spans[1]; i++ {
		x := &d.spans[i]
		p := piece{x, i, x.row, x.n, x.pos, 0}
		if d.call.Tree != nil && j.source == 0 && p.pos+p.n > j.base {
			p.n = max(0, j.base-p.pos)
			for k := range j.total - j.base {
				if pos := j.base + k; pos >= x.pos && pos < x.pos+x.n && d.seesNode(j, query, k) {
					n++
				}
			}
		}
		from, to := d.visible(j, &p, query)
		n += to - from
	}
	return n
}

// seesNode tells whether a query sees a node of the tree, masks apart.
func (d *decoder) seesNode(j *job, query, node int) bool {
	if !d.sees(j.node+query, node) {
		return false
	}
	at, key := d.position(j, query), j.base+d.depth[node]
	if j.window > 0 && key < at-j.window+1 {
		return false
	}
	if d.call.Visible != nil {
		f, t := d.call.Visible(int64(at))
		return int64(key) >= f && int64(key) < t
	}
	return true
}
