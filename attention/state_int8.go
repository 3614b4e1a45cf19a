package attention

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
	"github.com/subquad/subquad/internal/kernel"
	"github.com/subquad/subquad/internal/kernel/scalar"
	"github.com/subquad/subquad/internal/mat"
)

// Int8 has a scale for each part of a head's row: of a key that has its value in it the
// value's columns and the rest, which differ in size (MLA's latent and rotated key), and
// otherwise the whole row. A token's numbers depend on that token alone.
//
// A few features that are much larger than the rest (those with a bias) would leave little
// of a scale to the rest. Such a row stands turned: multiplied by an orthogonal matrix of
// signs, which spreads what is large over all features (Ashkboos et al. 2024, arXiv
// 2404.00456). Queries are turned before they meet turned keys, and sums of turned values
// are turned back. The scale of such a row is stored negative, and its integers are those
// of the turned row times -1.

// mostTurned is the widest row that is ever turned.
const mostTurned = 1024

// parts is how many scales a head's row has.
func (s *store) parts() int {
	if s.value > 0 {
		return 2
	}
	return 1
}

// part returns the columns of a head that one scale is for.
func (s *store) part(p int) (from, to int) {
	switch {
	case s.value == 0:
		return 0, s.dim
	case p == 0:
		return 0, s.value
	}
	return s.value, s.dim
}

// scales are those of n rows of a part of a head.
func (s *store) scales(p, h, row, n int) []float32 {
	return s.scale[(p*s.heads+h)*s.tokens+row:][:n]
}

// putInt8 stores a token's row; turned is working memory.
func (s *store) putInt8(at int, row []float32, turned *[mostTurned]float32) {
	for p := range s.parts() {
		from, to := s.part(p)
		for h := range s.heads {
			x, q := row[h*s.dim:][from:to], s.int8[at*s.stride+h*s.dim:][from:to]
			scale := &s.scales(p, h, at, 1)[0]
			if y := turned[:min(len(x), mostTurned)]; worthTurning(y, x) {
				*scale = -asm.QuantizeInt8(q, y)
				s.turned = true
				continue
			}
			*scale = asm.QuantizeInt8(q, x)
		}
	}
}

// worthTurning tells whether a row is stored turned, and sets y to it, times -1, if so.
// Rows of numbers that are normally distributed are not, but for one in 10,000.
func worthTurning(y, x []float32) bool {
	if len(y) < len(x) {
		return false
	}
	largest, squares := scalar.Largest(x), float32(0)
	for _, v := range x {
		squares += float32(v * v)
	}
	if !(float32(largest*largest)*float32(len(x)) > 9*squares) { // NaN and Inf too
		return false
	}
	asm.Scale(y, -1, x)
	turn(y)
	return scalar.Largest(y) < 0.45*largest
}

// turn multiplies x by the Walsh-Hadamard matrix over the root of its width, which is its
// own inverse: of all of x where its width is a power of two, otherwise piece by piece.
func turn(x []float32) {
	for len(x) > 1 {
		n := 1
		for 2*n <= len(x) {
			n *= 2
		}
		for half := 1; half < n; half *= 2 {
			for at := 0; at < n; at += 2 * half {
				a, b := x[at:][:half], x[at+half:][:half]
				for i, v := range a {
					a[i], b[i] = v+b[i], v-b[i]
				}
			}
		}
		asm.Scale(x[:n], float32(1/math.Sqrt(float64(n))), x[:n])
		x = x[n:]
	}
}

// scaleRow makes numbers of the integers of a head's row, or of its first part.
func (s *store) scaleRow(x []float32, h, row int) {
	for p := range s.parts() {
		from, to := s.part(p)
		if from >= len(x) {
			return
		}
		y, scale := x[from:min(to, len(x))], s.scales(p, h, row, 1)[0]
		asm.Scale(y, scale, y)
		if scale < 0 {
			turn(y)
		}
	}
}

// countTurned is how many rows stand turned. Most often none does, which signs tell together.
func countTurned(scales []float32) (n int) {
	rest, signs := scales, uint32(0)
	for ; len(rest) >= 4; rest = rest[4:] {
		signs |= math.Float32bits(rest[0]) | math.Float32bits(rest[1]) | math.Float32bits(rest[2]) | math.Float32bits(rest[3])
	}
	if len(rest) == 0 && signs>>31 == 0 {
		return 0
	}
	for _, x := range scales {
		if x < 0 {
			n++
		}
	}
	return n
}

// int8Keys is how many keys of parts, or of which some stand turned, are taken at once.
const int8Keys = 64

// int8Scores is headScores of a store of int8. q is packed part by part, then, if the job
// has keys that stand turned, turned.
func (w *stepWork) int8Scores(s blas32.General, q []float32, k *store, h, row int, next *byte) {
	for p := range k.parts() {
		from, to := k.part(p)
		keys, scales := k.head(h, row, s.Cols, k.dim).Columns(from, to), k.scales(p, h, row, s.Cols)
		plain, turned := q[s.Rows*from:s.Rows*to], []float32(nil)
		count := 0
		if k.turned {
			turned, count = q[s.Rows*k.dim:][s.Rows*from:s.Rows*to], countTurned(scales)
		}
		switch {
		case p == 0 && count == 0:
			w.d.op.stepTile.Scores(s, plain, keys, next)
		case p == 0 && count == s.Cols:
			w.d.op.stepTile.Scores(s, turned, keys, next)
		default:
			w.mixedScores(s, plain, turned, keys, scales, p > 0)
			continue
		}
		for i := range s.Rows {
			x := mat.Row(s, i)
			asm.Mul(x, x, scales)
		}
	}
}

// mixedScores gives keys of which some may stand turned their scores, or adds them.
func (w *stepWork) mixedScores(s blas32.General, plain, turned []float32, keys kernel.Strided, scales []float32, add bool) {
	tile := w.d.op.stepTile
	for at := 0; at < s.Cols; at += int8Keys {
		n := min(int8Keys, s.Cols-at)
		some := keys.From(at)
		some.Rows = n
		x, y := mat.Of(w.int8, s.Rows, n), mat.Of(w.int8[s.Rows*n:], s.Rows, n)
		tile.Scores(x, plain, some, nil)
		if turned != nil {
			tile.Scores(y, turned, some, nil)
			takeTurned(x, y, scales[at:][:n])
		}
		for i := range s.Rows {
			to, from := mat.Part(s, i, at, n), mat.Row(x, i)
			if !add {
				asm.Mul(to, from, scales[at:][:n])
				continue
			}
			asm.Mul(from, from, scales[at:][:n])
			asm.Add(to, to, from)
		}
	}
}

// takeTurned puts into x [rows, keys] the scores in y of keys that stand turned.
func takeTurned(x, y blas32.General, scales []float32) {
	for i := range x.Rows {
		to, from := mat.Row(x, i), mat.Row(y, i)
		for j, scale := range scales {
			if scale < 0 {
				to[j] = from[j]
			}
		}
	}
}

// int8Values is headValues of a store of int8: turned [rows of o, vCols] is for the sums of
// rows that stand turned, and has been multiplied by factor.
func (w *stepWork) int8Values(o, turned, weights blas32.General, v *store, h, row int, factor []float32, next *byte) {
	tile, n := w.d.op.stepTile, weights.Cols
	values, scales, count := v.head(h, row, n, w.d.op.cfg.ValueDim), v.scales(0, h, row, n), 0
	for i := range weights.Rows {
		x := mat.Row(weights, i)
		asm.Mul(x, x, scales)
	}
	if v.turned {
		count = countTurned(scales)
	}
	if count == 0 {
		tile.Values(o, weights, values, factor, next)
		return
	}
	if count == n {
		for i := range o.Rows {
			x := mat.Row(o, i)
			asm.Scale(x, factor[i], x)
		}
		tile.Values(turned, weights, values, w.ones[:o.Rows], next)
		return
	}
	for at := 0; at < n; at += int8Keys {
		m := min(int8Keys, n-at)
		some, x := values.From(at), mat.Of(w.int8, o.Rows, m)
		some.Rows = m
		for i := range x.Rows {
			from, to := mat.Part(weights, i, at, m), mat.Row(x, i)
			for j, scale := range scales[at:][:m] {
				to[j] = 0
				if scale < 0 {
					to[j], from[j] = from[j], 0
				}
			}
		}
		tile.Values(turned, x, some, w.ones[:o.Rows], nil)
		tile.Values(o, mat.Columns(weights, at, m), some, factor, nil)
		factor = w.ones[:o.Rows]
	}
}
