package merge

import (
	"context"
	"math"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/scratch"
)

// search finds the nearest destination of every source that takes part.
func (r *matchRun) search(ctx context.Context) error {
	r.to, r.score = scratch.Sized(r.to, len(r.from)), scratch.Sized(r.score, len(r.from))
	if r.near() {
		return r.perTask(ctx, r.cut(rowBlock, func(s *sequence) int { return s.froms.len() }), (*matchRun).searchNear)
	}
	if err := r.packUnits(ctx, r.cand, func(s *sequence) span { return s.can }); err != nil {
		return err
	}
	rows := searchTiles * r.m.tile.Rows()
	return r.perTask(ctx, r.cut(rows, func(s *sequence) int { return s.froms.len() }), (*matchRun).searchBlock)
}

// near tells whether a source has so few destinations to look at that each is taken by
// itself.
func (r *matchRun) near() bool { return r.m.cfg.Method == Local && r.m.cfg.Window <= 2 }

// Blocks: tiles of sources to a task, and panels of destinations to a packing task, to a
// strip of scores and, in the first caches, to all sources of a task in turn.
const (
	searchTiles = 16
	packPanels  = 8
	stripPanels = 4
	nearPanels  = 16
	lookPanels  = 64 * nearPanels // between looks at the context
)

// packUnits writes normalised rows of the tokens of a list into panels.
func (r *matchRun) packUnits(ctx context.Context, tokens []int32, share func(*sequence) span) error {
	w, dim, total := r.m.tile.Panel(), r.call.Metric.Cols, 0
	r.columns = tokens
	for i := range r.seqs {
		s := &r.seqs[i]
		s.columns, s.packed = share(s), total
		total += r.m.tile.Panels(s.columns.len()) * w * dim
	}
	r.packed = scratch.Floats(r.packed, total)
	return r.perTask(ctx, r.cut(packPanels*w, func(s *sequence) int { return s.columns.len() }), (*matchRun).packBlock)
}

// packBlock packs some columns. What is left of the last panel is filled with the last
// of them: being the same and after it, it is never the first of the nearest.
func (r *matchRun) packBlock(k *worker, t task) {
	s, w, dim := &r.seqs[t.seq], r.m.tile.Panel(), r.call.Metric.Cols
	tokens := s.columns.of(r.columns)[t.from:t.to]
	whole := (len(tokens) + w - 1) / w * w
	k.rows = scratch.Floats(k.rows, whole*dim)
	rows := mat.Of(k.rows, whole, dim)
	for i := range whole {
		r.normalise(mat.Row(rows, i), tokens[min(i, len(tokens)-1)])
	}
	r.m.tile.PackKeys(r.packed[s.packed+t.from*dim:][:whole*dim], 0, rows)
}

// normalise sets dst to the metric's row of a token, of length 1.
func (r *matchRun) normalise(dst []float32, token int32) {
	asm.Scale(dst, r.inverse[token], mat.Row(r.call.Metric, int(token)))
}

// searchNear is the search of Local among few destinations.
func (r *matchRun) searchNear(k *worker, t task) {
	s, dim := &r.seqs[t.seq], r.call.Metric.Cols
	k.rows = scratch.Floats(k.rows, 2*dim)
	a, b := k.rows[:dim], k.rows[dim:2*dim]
	tokens := s.can.of(r.cand)
	near := r.window(s, r.from[s.froms.from+t.from])
	for i := s.froms.from + t.from; i < s.froms.from+t.to; i++ {
		r.to[i], r.score[i] = none, float32(math.Inf(-1))
		r.normalise(a, r.from[i])
		r.slide(&near, s, r.from[i])
		for j := near.from; j < near.to; j++ {
			r.normalise(b, tokens[j])
			if v := asm.Dot(a, b); v > r.score[i] {
				r.to[i], r.score[i] = int32(s.can.from+j), v
			}
		}
	}
}

// window returns which destinations of a sequence that take part a source may merge
// into.
func (r *matchRun) window(s *sequence, source int32) span {
	tokens := s.can.of(r.cand)
	if r.m.cfg.Method != Local {
		return span{0, len(tokens)}
	}
	low, high := r.reach(source)
	from, _ := slices.BinarySearch(tokens, low)
	to, _ := slices.BinarySearch(tokens, high)
	return span{from, to}
}

// slide moves a window on to that of a source farther on.
func (r *matchRun) slide(v *span, s *sequence, source int32) {
	if r.m.cfg.Method != Local {
		return
	}
	tokens := s.can.of(r.cand)
	low, high := r.reach(source)
	for v.from < len(tokens) && tokens[v.from] < low {
		v.from++
	}
	for v.to < len(tokens) && tokens[v.to] < high {
		v.to++
	}
}

// reach returns the tokens between which a source's destinations are: destination j of
// source i stands 2 (j-i) + 1 after it.
func (r *matchRun) reach(source int32) (low, high int32) {
	far := 2 * int32(min(r.m.cfg.Window-1, maxTokens/2))
	return source + 1 - far, source + 2 + far
}

// searchBlock is the search for a block of sources.
func (r *matchRun) searchBlock(k *worker, t task) {
	s, dim := &r.seqs[t.seq], r.call.Metric.Cols
	sources := s.froms.of(r.from)[t.from:t.to]
	k.rows = scratch.Floats(k.rows, len(sources)*dim)
	rows := mat.Of(k.rows, len(sources), dim)
	for i, t := range sources {
		r.normalise(mat.Row(rows, i), t)
	}
	at := s.froms.from + t.from
	to, score := r.to[at:][:len(sources)], r.score[at:][:len(sources)]
	for i := range to {
		to[i], score[i] = none, float32(math.Inf(-1))
	}
	if r.m.cfg.Method != Local {
		r.panels(k, s, rows, to, score, 0, r.m.tile.Panels(s.columns.len()))
		return
	}
	r.band(k, s, rows, sources, to, score)
}

// panels looks for the nearest among the panels from p0 to p1, all of whose columns may
// be taken.
func (r *matchRun) panels(k *worker, s *sequence, rows blas32.General, to []int32, score []float32, p0, p1 int) {
	w, dim := r.m.tile.Panel(), rows.Cols
	n := rows.Rows * w
	k.best, k.place = scratch.Floats(k.best, n), scratch.Floats(k.place, n)
	for i := range k.best {
		k.best[i] = float32(math.Inf(-1))
	}
	for p := p0; p < p1; p += nearPanels {
		few := min(nearPanels, p1-p)
		if (p-p0)%lookPanels == 0 && r.stopped() {
			return
		}
		r.m.tile.Nearest(k.best, k.place, rows, r.packed[s.packed+p*w*dim:][:few*w*dim], p, few)
	}
	for i := range rows.Rows {
		for l, v := range k.best[i*w:][:w] {
			if v < score[i] || math.IsInf(float64(v), -1) {
				continue
			}
			at := int32(s.can.from + int(k.place[i*w+l])*w + l)
			if v > score[i] || at < to[i] {
				to[i], score[i] = at, v
			}
		}
	}
}

// band is the search of Local: every source looks at a window of destinations, which
// few rows at a time share.
func (r *matchRun) band(k *worker, s *sequence, rows blas32.General, sources, to []int32, score []float32) {
	height, w := r.m.tile.Rows(), r.m.tile.Panel()
	height *= max(1, min(rows.Rows/height, r.m.cfg.Window/(2*height)))
	for i := 0; i < rows.Rows; i += height {
		n := min(height, rows.Rows-i)
		part, src, t, v := mat.Rows(rows, i, i+n), sources[i:i+n], to[i:i+n], score[i:i+n]
		// The windows move on: all see what the last one begins and the first ends with.
		first, last := r.window(s, src[0]), r.window(s, src[n-1])
		begin, end := first.from/w, r.m.tile.Panels(last.to)
		p0, p1 := (last.from+w-1)/w, first.to/w
		if first.to == s.columns.len() {
			p1 = end
		}
		if p0 >= p1 {
			r.strips(k, s, part, src, t, v, begin, end)
			continue
		}
		r.strips(k, s, part, src, t, v, begin, p0)
		r.panels(k, s, part, t, v, p0, p1)
		r.strips(k, s, part, src, t, v, p1, end)
	}
}

// strips looks for the nearest among the panels from p0 to p1 by writing scores down.
func (r *matchRun) strips(k *worker, s *sequence, rows blas32.General, sources, to []int32, score []float32, p0, p1 int) {
	w, dim := r.m.tile.Panel(), rows.Cols
	for p := p0; p < p1; p += stripPanels {
		cols := w * min(stripPanels, p1-p)
		k.score = scratch.Floats(k.score, rows.Rows*cols)
		strip := mat.Of(k.score, rows.Rows, cols)
		r.m.tile.Scores(strip, rows, r.packed[s.packed+p*w*dim:][:cols*dim])
		seen := r.window(s, sources[0])
		for i, source := range sources {
			r.slide(&seen, s, source)
			from, end := max(seen.from, p*w), min(seen.to, p*w+cols)
			for j := from; j < end; j++ {
				at := int32(s.can.from + j)
				if v := strip.Data[i*cols+j-p*w]; v > score[i] || v == score[i] && at < to[i] {
					to[i], score[i] = at, v
				}
			}
		}
	}
}
