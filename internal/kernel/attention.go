package kernel

import (
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/kernel/scalar"
)

// AttentionTile is the work of exact attention on one tile, some query rows by
// some keys: scores, online softmax, weighted sum of values. Package attention
// walks the tiles.
//
// Keys and values are packed into panels, as wide as a kernel's tile of
// results. A row's results depend neither on the other rows nor on how many
// there are, to the bit. The layout depends on the tier, which is captured when
// the value is made; the zero value is the generic tier.
type AttentionTile struct{ tier isa.Tier }

// NewAttentionTile returns the tile of the active tier.
func NewAttentionTile() AttentionTile { return AttentionTile{isa.Active()} }

// Rows returns how many query rows are best done at once.
func (t AttentionTile) Rows() int { return sizesOf[t.tier].tileRows }

// Panel returns the width of a panel: keys in a panel of keys, columns in one of
// values.
func (t AttentionTile) Panel() int { return sizesOf[t.tier].panelCols }

// Panels returns how many panels n keys or columns take.
func (t AttentionTile) Panels(n int) int { return (n + t.Panel() - 1) / t.Panel() }

// PackKeys writes keys k [n, dim] as the ones from at on into panels
// [dim][Panel], one after the other.
func (t AttentionTile) PackKeys(dst []float32, at int, k blas32.General) {
	const op = "kernel: AttentionTile.PackKeys"
	CheckMatrix(op, "k", k, k.Rows, k.Cols)
	w, dim := t.Panel(), k.Cols
	CheckAtLeast(op, "dst", len(dst), t.Panels(at+k.Rows)*w*dim)
	for i := 0; i < k.Rows; {
		c := (at + i) % w
		n := min(w-c, k.Rows-i)
		panel := dst[(at+i)/w*w*dim:][:w*dim]
		done := 0 // columns
		if lanes := sizesOf[t.tier].lanes; n >= lanes && dim >= lanes && t.tier != isa.Generic {
			n, done = lanes, dim/lanes*lanes
			const perCall = 1024
			for d := 0; d < done; d += perCall {
				attentionPackSIMD(t.tier, min(perCall, done-d), &k.Data[i*k.Stride+d], 4*k.Stride, &panel[d*w+c], 4*w)
			}
		}
		const block = 16 // columns of k at a time: a cache line of each key
		for d0 := done; d0 < dim; d0 += block {
			d1 := min(d0+block, dim)
			for j := range n {
				for d, v := range k.Data[(i+j)*k.Stride:][d0:d1] {
					panel[(d0+d)*w+c+j] = v
				}
			}
		}
		i += n
	}
}

// PackValues writes values v [n, cols] as the ones from at on into panels
// [size][Panel], one after the other. Columns beyond the last are 0.
func (t AttentionTile) PackValues(dst []float32, size, at int, v blas32.General) {
	const op = "kernel: AttentionTile.PackValues"
	CheckMatrix(op, "v", v, v.Rows, v.Cols)
	w := t.Panel()
	CheckAtLeast(op, "size", size, at+v.Rows)
	CheckAtLeast(op, "dst", len(dst), t.Panels(v.Cols)*size*w)
	for c := 0; c < v.Cols; c += w {
		n := min(w, v.Cols-c)
		panel := dst[c*size+at*w:]
		if n == w && t.tier != isa.Generic {
			copyPanel(t.tier, panel, v, c)
			continue
		}
		for i := range v.Rows {
			row := panel[i*w:][:w]
			copy(row, v.Data[i*v.Stride+c:][:n])
			clear(row[n:])
		}
	}
}

// perCallWork is how many multiply-adds a kernel call of Scores does at the most.
const perCallWork = 1 << 19

// Scores sets s = q k, with q [rows, dim], k packed by PackKeys and s [rows,
// keys], keys a multiple of Panel. s must not overlap the others.
func (t AttentionTile) Scores(s, q blas32.General, k []float32) { t.ScoresAhead(s, q, k, nil) }

// ScoresAhead is Scores, and asks meanwhile for memory that will be needed, as Prefetch does:
// from ahead on, unless it is empty, a cache line for every 4 Panel multiply-adds of a row.
func (t AttentionTile) ScoresAhead(s, q blas32.General, k, ahead []float32) {
	const op = "kernel: AttentionTile.Scores"
	w, dim := t.Panel(), q.Cols
	CheckMatrix(op, "q", q, q.Rows, dim)
	CheckMatrix(op, "s", s, q.Rows, s.Cols/w*w)
	CheckAtLeast(op, "k", len(k), s.Cols*dim)
	if s.Rows == 0 || s.Cols == 0 {
		return
	}
	if dim == 0 {
		for i := range s.Rows {
			clear(s.Data[i*s.Stride:][:s.Cols])
		}
		return
	}
	if len(ahead) == 0 {
		ahead = k
	}
	perCall := max(1, perCallWork/(t.Rows()*w*dim))
	for i := 0; i < q.Rows; {
		height := t.height(min(q.Rows-i, max(1, perCallWork/(w*dim))))
		for p := 0; p < s.Cols/w; p += perCall {
			n := min(perCall, s.Cols/w-p)
			t.scoreTile(height, n, dim, q.Data[i*q.Stride:], q.Stride, k[p*w*dim:], s.Data[i*s.Stride+p*w:], s.Stride, ahead[min(p*dim/4*prefetchLine, len(ahead)-1):])
		}
		i += height
	}
}

// height is the height of the next kernel when left rows remain.
func (t AttentionTile) height(left int) int {
	switch full := t.Rows(); {
	case left >= full:
		return full
	case t.tier == isa.Generic:
		return left
	case left >= 4:
		return 4
	}
	return 1
}

func (t AttentionTile) scoreTile(rows, panels, dim int, q []float32, qStride int, k, s []float32, sStride int, ahead []float32) {
	switch {
	case t.tier == isa.Generic:
		scoresGeneric(rows, panels, dim, q, qStride, k, s, sStride)
	case rows == 1:
		attentionScores1SIMD(t.tier, dim, panels, &q[0], 4*qStride, &k[0], &s[0], 4*sStride, &ahead[0])
	case rows == 4:
		attentionScores4SIMD(t.tier, dim, panels, &q[0], 4*qStride, &k[0], &s[0], 4*sStride, &ahead[0])
	default:
		attentionScoresFullSIMD(t.tier, dim, panels, &q[0], 4*qStride, &k[0], &s[0], 4*sStride, &ahead[0])
	}
}

func scoresGeneric(rows, panels, dim int, q []float32, qStride int, k, s []float32, sStride int) {
	const w = genericPanel
	for p := range panels {
		b := quads(k[p*dim*w:][:dim*w])
		i := 0
		for ; i+2 <= rows; i += 2 {
			at := i*sStride + p*w
			c, d := (*quad)(s[at:]), (*quad)(s[at+sStride:])
			*c, *d = quad{}, quad{}
			tile2(c, d, q[i*qStride:], q[(i+1)*qStride:], b)
		}
		if i < rows {
			c := (*quad)(s[i*sStride+p*w:])
			*c = quad{}
			tile1(c, q[i*qStride:], b)
		}
	}
}

// Weights is the step of the online softmax (Milakov and Gimelshein 2018) for
// each row i of s, in place, given the largest score top[i] so far and the sum
// sum[i] of exp(score - top[i]) over those before:
//
//	t = max(top[i], max over j of s[i][j])
//	factor[i] = exp(top[i] - t)
//	s[i][j] = exp(s[i][j] - t)
//	sum[i] = sum[i] factor[i] + sum over j of s[i][j]
//	top[i] = t
//
// A row begins with top -MaxFloat32 and sum 0. Scores of -Inf, the masked ones,
// become 0; a row with NaN or +Inf has NaN for its sum from then on. The
// exponentials err by less than (2.5 + |x|/4) ULP at x; below -87.33654 they are 0.
func (t AttentionTile) Weights(s blas32.General, top, sum, factor []float32) {
	const op = "kernel: AttentionTile.Weights"
	CheckMatrix(op, "s", s, s.Rows, s.Cols)
	CheckLen(op, "top", len(top), s.Rows)
	CheckLen(op, "sum", len(sum), s.Rows)
	CheckLen(op, "factor", len(factor), s.Rows)
	if s.Rows == 0 {
		return
	}
	if s.Cols == 0 {
		for i := range factor {
			factor[i] = 1
		}
		return
	}
	if t.tier == isa.Generic {
		weightsGeneric(s, top, sum, factor)
		return
	}
	perCall := max(1, 1<<14/s.Cols)
	for i := 0; i < s.Rows; i += perCall {
		attentionWeightsSIMD(t.tier, min(perCall, s.Rows-i), s.Cols, &s.Data[i*s.Stride], 4*s.Stride, &top[i], &sum[i], &factor[i])
	}
}

func weightsGeneric(s blas32.General, top, sum, factor []float32) {
	for i := range s.Rows {
		row := s.Data[i*s.Stride:][:s.Cols]
		t := top[i]
		for _, v := range row {
			if v > t {
				t = v
			}
		}
		factor[i] = scalar.Weight(top[i] - t)
		total := float32(0)
		for j, v := range row {
			row[j] = scalar.Weight(v - t)
			total += row[j]
		}
		sum[i] = float32(sum[i]*factor[i]) + total
		top[i] = t
	}
}

// Values sets o[i] = factor[i] o[i] + sum over j of p[i][j] v[j], with p [rows,
// keys], v packed by PackValues for size keys, of which these begin at from, and
// o [rows, cols], cols a multiple of Panel. o must not overlap the others.
func (t AttentionTile) Values(o, p blas32.General, v []float32, size, from int, factor []float32) {
	const op = "kernel: AttentionTile.Values"
	w, keys := t.Panel(), p.Cols
	CheckMatrix(op, "p", p, p.Rows, keys)
	CheckMatrix(op, "o", o, p.Rows, o.Cols/w*w)
	CheckLen(op, "factor", len(factor), p.Rows)
	CheckAtLeast(op, "size", size, from+keys)
	CheckAtLeast(op, "v", len(v), size*o.Cols)
	if keys > maxTileKeys {
		Panicf("%s: %d keys, want at most %d", op, keys, maxTileKeys)
	}
	if o.Cols == 0 {
		return
	}
	if keys == 0 {
		for i := range o.Rows {
			scaleBy(o.Data[i*o.Stride:][:o.Cols], factor[i])
		}
		return
	}
	for c := 0; c < o.Cols; c += w {
		panel := v[c*size+from*w:]
		for i := 0; i < p.Rows; {
			height := t.height(p.Rows - i)
			t.valueTile(height, keys, p.Data[i*p.Stride:], p.Stride, panel, o.Data[i*o.Stride+c:], o.Stride, factor[i:])
			i += height
		}
	}
}

// maxTileKeys bounds one kernel call of Values.
const maxTileKeys = 1024

func (t AttentionTile) valueTile(rows, keys int, p []float32, pStride int, v, o []float32, oStride int, factor []float32) {
	switch {
	case t.tier == isa.Generic:
		valuesGeneric(rows, keys, p, pStride, v, o, oStride, factor)
	case rows == 1:
		attentionValues1SIMD(t.tier, keys, &p[0], 4*pStride, &v[0], &o[0], 4*oStride, &factor[0])
	case rows == 4:
		attentionValues4SIMD(t.tier, keys, &p[0], 4*pStride, &v[0], &o[0], 4*oStride, &factor[0])
	default:
		attentionValuesFullSIMD(t.tier, keys, &p[0], 4*pStride, &v[0], &o[0], 4*oStride, &factor[0])
	}
}

func valuesGeneric(rows, keys int, p []float32, pStride int, v, o []float32, oStride int, factor []float32) {
	b := quads(v[:keys*genericPanel])
	for i := 0; i < rows; i += 2 {
		var sum [2]quad
		height := min(2, rows-i)
		if height == 2 {
			tile2(&sum[0], &sum[1], p[i*pStride:], p[(i+1)*pStride:], b)
		} else {
			tile1(&sum[0], p[i*pStride:], b)
		}
		for r := range height {
			row, f := (*quad)(o[(i+r)*oStride:]), factor[i+r]
			for c, x := range row {
				row[c] = float32(x*f) + sum[r][c]
			}
		}
	}
}

// Mass adds the weights exp(s[j] - lse) of one row of scores to mass, and returns
// the sum of w log w over them, minus the row's entropy.
func (t AttentionTile) Mass(mass, s []float32, lse float32) float32 {
	CheckInto("kernel: AttentionTile.Mass", mass, s)
	if len(s) == 0 {
		return 0
	}
	if t.tier != isa.Generic {
		return attentionMassSIMD(t.tier, mass, s, lse)
	}
	sum := float32(0)
	for j, v := range s {
		d := max(v-lse, -88) // max keeps NaN
		w := scalar.Exp(d)
		mass[j] += w
		sum += float32(w * d)
	}
	return sum
}

// scaleBy multiplies every element of a row by a.
func scaleBy(row []float32, a float32) {
	for i, v := range row {
		row[i] = a * v
	}
}
