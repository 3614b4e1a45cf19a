package hyena

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// edge returns where the inputs about the border before a part of a unit are kept: before
// tokens, and after. ok is false where dst is not u, or the part is the first, or beyond the last.
func (r *convRun) edge(unit, part int) (before, after blas32.General, ok bool) {
	if len(r.edges) == 0 || part == 0 || part == r.parts[kindOf(r.units[unit])] {
		return before, after, false
	}
	at := 0
	for i, u := range r.units {
		k, parts := &r.cuts[kindOf(u)], r.parts[kindOf(u)]
		size := (k.before + k.after) * u.channels
		if i == unit {
			own := mat.Of(r.edges[at+(part-1)*size:], k.before+k.after, u.channels)
			return mat.Rows(own, 0, k.before), mat.Rows(own, k.before, own.Rows), true
		}
		at += (parts - 1) * size
	}
	return before, after, false
}

// saveEdges copies the inputs about the borders of parts, which other parts write over.
func (r *convRun) saveEdges() {
	size := 0
	for _, u := range r.units {
		k := &r.cuts[kindOf(u)]
		size += (r.parts[kindOf(u)] - 1) * (k.before + k.after) * u.channels
	}
	r.edges = scratch.Floats(r.edges, size)
	for i, u := range r.units {
		k := &r.cuts[kindOf(u)]
		in := mat.Columns(r.u, u.channel, u.channels)
		for part := 1; part < r.parts[kindOf(u)]; part++ {
			before, after, ok := r.edge(i, part)
			if !ok {
				return
			}
			from, _ := k.outputs(r.windowOf(u, part), in.Rows)
			mat.Copy(before, mat.Rows(in, from-k.before, from))
			mat.Copy(after, mat.Rows(in, from, min(from+k.after, in.Rows)))
		}
	}
}

// windowOf returns the first window of a part of a unit.
func (r *convRun) windowOf(u unit, part int) int {
	k := &r.cuts[kindOf(u)]
	return int(int64(part) * int64(k.count) / int64(r.parts[kindOf(u)]))
}

// convolveWindows convolves the windows of a part of unit i, from the last to the first, so
// that dst may be in: a window's inputs before it are not yet written over, those after it
// are kept in w.ahead.
func (r *convRun) convolveWindows(dst, in blas32.General, i, part int, spectrum []float32, w *convWorker) {
	u := r.units[i]
	k, p := &r.cuts[kindOf(u)], r.planOf(u)
	lanes := p.Lanes()
	inPlace := len(r.edges) > 0 || mat.Overlap(dst, in)
	first, end := r.windowOf(u, part), r.windowOf(u, part+1)
	w.rows = scratch.Floats(w.rows, p.n*lanes)
	before, _, borders := r.edge(i, part)
	_, ahead, isAhead := r.edge(i, part+1)
	if inPlace && k.after > 0 {
		w.ahead = scratch.Floats(w.ahead, k.after*u.channels)
	}
	for at := end - 1; at >= first && !r.group.Stopped(); at-- {
		from, to := k.outputs(at, in.Rows)
		begin := at * k.step // of the window
		stop := min(begin+k.window, in.Rows)
		own := ownRows(w.rows, u, stop-begin, lanes)
		x, stride := w.rows, lanes
		if !inPlace && u.channels == lanes && stop-begin == k.window {
			x, stride = mat.Rows(in, begin, stop).Data, in.Stride
		} else {
			if stop-begin < k.window || u.channels < lanes && !u.phases {
				clear(w.rows)
			}
			// Of rows that another part or window writes over, the inputs were kept.
			low, high := 0, stop-begin
			if at == first && borders {
				low = k.before
				mat.Copy(own, before)
			}
			if inPlace && k.after > 0 && at < k.count-1 {
				if at < end-1 {
					ahead, isAhead = mat.Of(w.ahead, k.after, u.channels), true
				}
				if isAhead {
					high = to - begin
					mat.Copy(mat.Rows(own, high, stop-begin), mat.Rows(ahead, 0, stop-to))
				}
			}
			mat.Copy(mat.Rows(own, low, high), mat.Rows(in, begin+low, begin+high))
			if inPlace && k.after > 0 && at > first {
				n := min(k.after, in.Rows-from)
				mat.Copy(mat.Of(w.ahead, n, u.channels), mat.Rows(own, from-begin, from-begin+n))
			}
		}
		p.multiply(&r.group, w.rows, lanes, x, stride, p.n, spectrum, w.work, u.phases)
		mat.Copy(mat.Rows(dst, from, to), mat.Rows(own, from-begin, to-begin))
	}
}
