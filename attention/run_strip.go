package attention

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/mat"
	"github.com/subquad/subquad/internal/tile"
)

// strip adds a tile of keys to rows i ... i+n of the worker, no more than the
// kernels take at once: the scores stay in the first cache from product to
// product.
func (w *forwardWork) strip(t *keyTile, i, n int) {
	s, from, to, whole := w.looked(t, i, n)
	if from >= to {
		return
	}
	a := w.r.op
	if !whole {
		for j := range n {
			row := mat.Row(s, j)
			l, h := w.seenPart(t, i+j, from, to)
			kernel.Hide(row[:l])
			kernel.Hide(row[h:])
		}
	}
	if a.cfg.ReLU {
		rectify(s, w.factor[i:i+n])
	} else {
		a.tile.Weights(s, w.top[i:i+n], w.sum[i:i+n], w.factor[i:i+n])
	}
	if a.split.Split() {
		w.weighSplit(t, s, i, from, to)
		return
	}
	cols := w.r.op.outCols()
	o := blas32.General{Rows: n, Cols: cols, Stride: cols, Data: w.o[i*cols:]}
	if t.info.finite {
		a.tile.Values(o, s, t.v, a.sizes.Keys, from-t.from, w.factor[i:i+n])
	} else {
		tile.SparseValues(o, s, t.v, a.tile.Panel(), a.sizes.Keys, from-t.from, w.factor[i:i+n])
	}
}

// plain tells whether nothing stands between the products of queries and keys and the softmax, nor
// between that and the product with the values, but what rows do not see.
func (w *forwardWork) plain(t *keyTile) bool {
	a, call := w.r.op, &w.r.call
	cfg := &a.cfg
	if cfg.ReLU || cfg.Softcap > 0 || a.split.Split() || !t.info.finite || w.r.src[t.source].weighted() {
		return false
	}
	return t.source > 0 || cfg.Bias == nil && cfg.Skip == 0 && call.Bias == nil && call.Mask == nil
}

// attendPlain is strip for all rows of the tile of rows, for a tile of keys that is plain.
func (w *forwardWork) attendPlain(t *keyTile) {
	const most = 1 << 23 // multiply-adds between two looks at the context, or those of a strip
	a := w.r.op
	d, cols, height := a.cfg.HeadDim, a.outCols(), a.height()
	strips := max(1, most/(height*a.sizes.Keys*(d+cols)))
	for i := 0; i < w.rows && !w.r.group.Stopped(); i += strips * height {
		end := min(i+strips*height, w.rows)
		w.attending = kernel.Attending{
			Q:   blas32.General{Rows: end - i, Cols: d, Stride: d, Data: w.q[i*d:]},
			O:   blas32.General{Rows: end - i, Cols: cols, Stride: cols, Data: w.o[i*cols:]},
			Top: w.top[i:end], Sum: w.sum[i:end], Factor: w.factor[i:end],
			From: w.from[t.source][i:end], To: w.to[t.source][i:end], Seen: w.seen(t.source, i),
			S: blas32.General{Rows: height, Cols: a.sizes.Keys, Stride: a.scoreStride(), Data: w.s},
		}
		ahead := t.ahead[len(t.ahead)*i/w.rows : len(t.ahead)*end/w.rows]
		a.tile.Attend(&w.attending, t.k, t.v, a.sizes.Keys, t.from, t.to-t.from, ahead)
	}
}

// looked returns the logits of rows i ... i+n with the keys of a tile that they look at, from
// ... to, and whether all of the rows see all of these. There are none where no row sees one
// that counts.
func (w *forwardWork) looked(t *keyTile, i, n int) (s blas32.General, from, to int, whole bool) {
	from, to, whole = w.span(t, i)
	if from >= to || w.negligible(t, i, n, from, to) {
		return s, 0, 0, false
	}
	s, ok := w.logits(t, i, n, from, to)
	if !ok {
		return s, 0, 0, false
	}
	return s, from, to, whole
}

// spanStrips finds what the strips of the tile of rows see.
func (w *forwardWork) spanStrips() {
	height := w.r.op.height()
	w.strips = w.strips[:0]
	for s := range w.r.src {
		for i := 0; i < w.rows; i += height {
			x := kernel.Seen{From: math.MaxInt, End: math.MaxInt}
			for j := i; j < min(i+height, w.rows); j++ {
				from, to := w.from[s][j], w.to[s][j]
				if from < to {
					x.From, x.To = min(x.From, from), max(x.To, to)
				}
				x.All, x.End = max(x.All, from), min(x.End, to)
			}
			w.strips = append(w.strips, x)
		}
	}
}

// span returns the keys of a tile that some rows of the strip that begins with row i see, and
// whether all of them see all of these.
func (w *forwardWork) span(t *keyTile, i int) (from, to int, whole bool) {
	x := &w.seen(t.source, i)[0]
	from, to = max(x.From, t.from), min(x.To, t.to)
	return from, to, x.All <= from && x.End >= to
}

// seen returns what the strips from the one that begins with row i on see of a source's keys.
func (w *forwardWork) seen(source, i int) []kernel.Seen {
	height := w.r.op.height()
	return w.strips[source*((w.rows+height-1)/height)+i/height:]
}

// seenPart returns what a row sees of keys from ... to, counted from from.
func (w *forwardWork) seenPart(t *keyTile, i, from, to int) (l, h int) {
	l = max(w.from[t.source][i], from) - from
	h = min(w.to[t.source][i], to) - from
	if l >= h {
		return 0, 0
	}
	return l, h
}

// logits returns the logits of rows i ... i+n with keys from ... to, hidden ones
// -Inf, or false where a mask hides all of them.
func (w *forwardWork) logits(t *keyTile, i, n, from, to int) (blas32.General, bool) {
	a, d := w.r.op, w.r.op.cfg.HeadDim
	masked := false
	if t.source == 0 && w.r.call.Mask != nil {
		switch w.sight(i, n, from, to) {
		case None:
			return blas32.General{}, false
		case Some:
			masked = true
		}
	}
	panel := a.panel()
	first, last := (from-t.from)/panel, (to-t.from+panel-1)/panel
	s := blas32.General{Rows: n, Cols: (last - first) * panel, Stride: w.r.op.scoreStride(), Data: w.s}
	if a.split.Split() {
		w.scoresSplit(t, s, i, first)
	} else {
		q := blas32.General{Rows: n, Cols: d, Stride: d, Data: w.q[i*d:]}
		a.tile.ScoresAhead(s, q, t.k[first*panel*d:], t.ahead[len(t.ahead)*i/w.rows:])
	}
	s.Data, s.Cols = s.Data[from-t.from-first*panel:], to-from
	if a.cfg.Softcap > 0 {
		for j := range n {
			row := mat.Row(s, j)
			asm.Softcap(row, a.cfg.Softcap, row)
		}
	}
	if t.source == 0 {
		for _, b := range [...]Bias{a.cfg.Bias, w.r.call.Bias} {
			if b != nil {
				w.perHead(s, i, from, b.AddTo)
			}
		}
	}
	if w.r.src[t.source].weighted() {
		for j := range n {
			row := mat.Row(s, j)
			asm.Add(row, row, t.w[from-t.from:][:s.Cols])
		}
	}
	if masked {
		w.perHead(s, i, from, w.r.call.Mask.Hide)
	}
	return s, true
}

// perHead calls f for the rows of each head in s, whose first row is i and first
// column key from of the sequence.
func (w *forwardWork) perHead(s blas32.General, i, from int, f func(s blas32.General, head int, query, key int64)) {
	heads := w.r.blockHeads()
	for j := range min(heads, s.Rows) {
		query, head := w.rowQuery(i + j)
		sub := s
		sub.Rows, sub.Stride, sub.Data = (s.Rows-j+heads-1)/heads, s.Stride*heads, s.Data[j*s.Stride:]
		f(sub, head, query, w.keyPosition(from))
	}
}

// sight joins the mask's answers for the heads of rows i ... i+n.
func (w *forwardWork) sight(i, n, from, to int) Sight {
	heads := w.r.blockHeads()
	var joined Sight
	for j := range min(heads, n) {
		query, head := w.rowQuery(i + j)
		x := w.r.call.Mask.Sight(head, query, w.keyPosition(from), (n-j+heads-1)/heads, to-from)
		if x == Some || j > 0 && x != joined {
			return Some
		}
		joined = x
	}
	return joined
}

// rectify makes the weights of ReLU attention, not yet divided by the number of
// keys.
func rectify(s blas32.General, factor []float32) {
	for i := range s.Rows {
		row := mat.Row(s, i)
		for j, x := range row {
			if x < 0 { // NaN stays
				row[j] = 0
			}
		}
		factor[i] = 1
	}
}
