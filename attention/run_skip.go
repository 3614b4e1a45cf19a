package attention

import (
	"math"
	"sort"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/mat"
)

// negligible tells whether biases hide all logits of rows i ... i+n with keys
// from ... to, or put them so far below each row's largest that Config.Skip
// covers them. If every tile left out has weights below Skip/keys of the largest
// one, all together have less than Skip of the whole.
func (w *forwardWork) negligible(t *keyTile, i, n, from, to int) bool {
	a := w.r.op
	if t.source != 0 || a.cfg.Bias == nil && w.r.call.Bias == nil && a.cfg.Skip == 0 {
		return false
	}
	most := float64(w.most(i, n, from, to))
	if math.IsInf(most, -1) {
		return true
	}
	if a.cfg.Skip == 0 {
		return false
	}
	keys := 0
	for s := range w.r.src {
		start, end := w.r.src[s].sequence(w.it.seq)
		keys += end - start
	}
	room := math.Log(float64(a.cfg.Skip) / float64(keys))
	for j := i; j < i+n; j++ {
		logit := float64(w.norm[j]) * float64(t.info.norm) * (1 + 1e-5 + float64(a.logitError()))
		if c := float64(a.cfg.Softcap); c > 0 {
			logit = min(logit, c)
		}
		if !(logit+most+float64(t.info.weight) < float64(max(w.top[j], w.least[j]))+room) { // NaN is not negligible
			return false
		}
	}
	return true
}

// most bounds the biases between rows i ... i+n and keys from ... to.
func (w *forwardWork) most(i, n, from, to int) float32 {
	heads := w.r.blockHeads()
	key := w.keyPosition(from)
	sum := float32(0)
	for _, b := range [...]Bias{w.r.op.cfg.Bias, w.r.call.Bias} {
		if b == nil {
			continue
		}
		largest := float32(math.Inf(-1))
		for j := range min(heads, n) {
			query, head := w.rowQuery(i + j)
			largest = max(largest, b.Most(head, query, key, (n-j+heads-1)/heads, to-from))
		}
		sum += largest
	}
	return sum
}

// bound finds, for each row, its norm and a logit that its largest is not below:
// that of the visible key nearest to its own position, which a decaying bias
// favours.
func (w *forwardWork) bound() {
	a := w.r.op
	d := a.cfg.HeadDim
	start, _ := w.r.src[0].sequence(w.it.seq)
	for i := range w.rows {
		q := w.q[i*d:][:d]
		w.norm[i] = float32(math.Sqrt(float64(asm.Dot(q, q))))
		w.least[i] = -math.MaxFloat32
		from, to := w.from[0][i], w.to[0][i]
		if from >= to {
			continue
		}
		query, head := w.rowQuery(i)
		at := int(min(max(query-w.keyPosition(0), int64(from)), int64(to-1)))
		kvHead := head / (a.cfg.Heads / a.cfg.KVHeads)
		key := w.r.src[0].keyRow(start+at, kvHead, d)
		w.exp2[0] = asm.Dot(q, key)
		if e := a.logitError(); e > 0 {
			w.exp2[0] -= e * w.norm[i] * float32(math.Sqrt(float64(asm.Dot(key, key))))
		}
		if a.cfg.Softcap > 0 {
			asm.Softcap(w.exp2[:1], a.cfg.Softcap, w.exp2[:1])
		}
		one := blas32.General{Rows: 1, Cols: 1, Stride: 1, Data: w.exp2[:1]}
		for _, b := range [...]Bias{a.cfg.Bias, w.r.call.Bias} {
			if b != nil {
				b.AddTo(one, head, query, w.keyPosition(at))
			}
		}
		if w.r.call.Mask != nil {
			w.r.call.Mask.Hide(one, head, query, w.keyPosition(at))
		}
		if m := w.r.src[0].weights; m.Rows > 0 {
			w.exp2[0] += mat.Row(m, start+at)[min(kvHead, m.Cols-1)]
		}
		// The kernel rounds otherwise.
		w.least[i] = w.exp2[0] - 1e-3 - 1e-5*float32(math.Abs(float64(w.exp2[0])))
	}
}

// keyRow returns a row of one head's keys.
func (s *source) keyRow(row, head, d int) []float32 {
	seg := sort.SearchInts(s.starts, row+1) - 1
	for row-s.starts[seg] >= s.k[seg].Rows {
		seg++
	}
	return mat.Part(s.k[seg], row-s.starts[seg], head*d, d)
}
