package kernel

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa"
)

// Seen is which keys of a sequence rows see: some of them those from From to To, all of them
// those from All to End.
type Seen struct{ From, To, All, End int }

// Attending is query rows that attend to one tile of keys after the other.
type Attending struct {
	Q, O             blas32.General // [rows, dim], [rows, cols], cols a multiple of Panel
	Top, Sum, Factor []float32      // [rows], as Weights has them
	From, To         []int          // [rows], the keys of its sequence that a row sees
	Seen             []Seen         // the same of Rows rows each
	S                blas32.General // [Rows, keys in whole panels] at least, scores of a strip of rows
}

// Attend is Scores, Weights and Values for all rows of x, to the bit, where nothing stands
// between the three but what rows do not see: Rows rows at a time, so that their scores stay
// in the first cache, and with one look at the sizes for all of them. The tile is keys from on,
// of their sequence; k is packed by PackKeys, v by PackValues for size keys, of which these are the
// first. ahead is that of ScoresAhead, divided among the rows.
func (t AttentionTile) Attend(x *Attending, k, v []float32, size, from, keys int, ahead []float32) {
	const op = "kernel: AttentionTile.Attend"
	rows, dim, cols, w, full := x.Q.Rows, x.Q.Cols, x.O.Cols, t.Panel(), t.Rows()
	CheckMatrix(op, "Q", x.Q, rows, dim)
	CheckMatrix(op, "O", x.O, rows, cols/w*w)
	CheckMatrix(op, "S", x.S, x.S.Rows, x.S.Cols)
	CheckAtLeast(op, "S.Rows", x.S.Rows, min(rows, full))
	CheckAtLeast(op, "S.Cols", x.S.Cols, t.Panels(keys)*w)
	CheckLen(op, "Top", len(x.Top), rows)
	CheckLen(op, "Sum", len(x.Sum), rows)
	CheckLen(op, "Factor", len(x.Factor), rows)
	CheckLen(op, "From", len(x.From), rows)
	CheckLen(op, "To", len(x.To), rows)
	CheckAtLeast(op, "size", size, keys)
	CheckAtLeast(op, "k", len(k), t.Panels(keys)*w*dim)
	CheckAtLeast(op, "v", len(v), size*cols)
	direct := t.tier != isa.Generic && dim > 0 && cols > 0 && keys <= maxTileKeys
	for i := 0; i < rows; i += full {
		seen, n := &x.Seen[i/full], min(full, rows-i)
		lo, hi := max(seen.From-from, 0), min(seen.To-from, keys)
		if lo >= hi {
			continue
		}
		strip := attendedStrip{x: x, row: i, n: n, from: from, lo: lo, hi: hi, whole: seen.All <= from+lo && seen.End >= from+hi}
		if next := ahead[len(ahead)*i/rows:]; direct && n == full {
			t.attendFull(&strip, k, v, size, next)
		} else {
			t.attendPart(&strip, k, v, size, next)
		}
	}
}

// attendedStrip is rows of an Attending that see keys lo to hi of a tile, all of them all of these or not.
type attendedStrip struct {
	x                    *Attending
	row, n, from, lo, hi int
	whole                bool
}

// hide sets what rows do not see of the scores s, which begin with key lo, to -Inf.
func (a *attendedStrip) hide(s []float32) {
	if a.whole {
		return
	}
	for j := range a.n {
		row := s[j*a.x.S.Stride:][:a.hi-a.lo]
		l := max(a.x.From[a.row+j]-a.from-a.lo, 0)
		h := min(a.x.To[a.row+j]-a.from-a.lo, len(row))
		if l >= h {
			l, h = 0, 0
		}
		Hide(row[:l])
		Hide(row[h:])
	}
}

// Hide sets scores to -Inf, as those of keys that are not seen.
func Hide(scores []float32) {
	low := float32(math.Inf(-1))
	for j := range scores {
		scores[j] = low
	}
}

// attendFull is Attend for as many rows as a kernel takes.
func (t AttentionTile) attendFull(a *attendedStrip, k, v []float32, size int, ahead []float32) {
	x, w, dim := a.x, t.Panel(), a.x.Q.Cols
	if len(ahead) == 0 {
		ahead = k
	}
	q, first, last := &x.Q.Data[a.row*x.Q.Stride], a.lo/w, t.Panels(a.hi)
	perCall := max(1, perCallWork/(a.n*w*dim))
	for p := first; p < last; p += perCall {
		next := &ahead[min((p-first)*dim/4*prefetchLine, len(ahead)-1)]
		attentionScoresFullSIMD(t.tier, dim, min(perCall, last-p), q, 4*x.Q.Stride, &k[p*w*dim], &x.S.Data[(p-first)*w], 4*x.S.Stride, next)
	}
	s, keys, factor := x.S.Data[a.lo-first*w:], a.hi-a.lo, &x.Factor[a.row]
	a.hide(s)
	attentionWeightsSIMD(t.tier, a.n, keys, &s[0], 4*x.S.Stride, &x.Top[a.row], &x.Sum[a.row], factor)
	for c := 0; c < x.O.Cols; c += w {
		attentionValuesFullSIMD(t.tier, keys, &s[0], 4*x.S.Stride, &v[c*size+a.lo*w], &x.O.Data[a.row*x.O.Stride+c], 4*x.O.Stride, factor)
	}
}

// attendPart is attendFull for any number of rows, and for the portable tier.
func (t AttentionTile) attendPart(a *attendedStrip, k, v []float32, size int, ahead []float32) {
	x, w, dim := a.x, t.Panel(), a.x.Q.Cols
	part := func(m blas32.General) blas32.General {
		m.Rows, m.Data = a.n, m.Data[min(a.row*m.Stride, len(m.Data)):]
		return m
	}
	first := a.lo / w
	s := blas32.General{Rows: a.n, Cols: (t.Panels(a.hi) - first) * w, Stride: x.S.Stride, Data: x.S.Data}
	t.ScoresAhead(s, part(x.Q), k[first*w*dim:], ahead)
	s.Cols, s.Data = a.hi-a.lo, s.Data[a.lo-first*w:]
	a.hide(s.Data)
	factor := x.Factor[a.row:][:a.n]
	t.Weights(s, x.Top[a.row:][:a.n], x.Sum[a.row:][:a.n], factor)
	t.Values(part(x.O), s, v, size, a.lo, factor)
}
