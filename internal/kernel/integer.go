package kernel

import (
	"math"
	"unsafe"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/mat"
)

// IntegerTile is DecodeTile's work on keys and values of int8 where queries and weights may be
// rounded to integers of 14 bits, so that products are of integers: several times as many at a
// time as of float32. Keys and values are read where they stand.
//
// Sums are those of integers, and so the same to the bit in every tier, on every processor and
// however keys are divided into calls; a row's results depend on no other row. The tier is
// captured when the value is made; the zero value is the portable form.
type IntegerTile struct{ queries ShadowTile }

// NewIntegerTile returns the tile of the active tier. Only AVX-512 has kernels: a vector of
// AVX2 or NEON takes as long for products of integers as for DecodeTile's of float32.
func NewIntegerTile() IntegerTile {
	if isa.Active() != isa.AVX512 {
		return IntegerTile{}
	}
	return IntegerTile{NewShadowTile()}
}

// Fast tells whether there are kernels.
func (t IntegerTile) Fast() bool { return t.queries.tier != isa.Generic }

// IntegerUnit is what the width of keys and values must be a multiple of.
const IntegerUnit = decodeUnit

// integerColumns is how many columns are taken at once, integerStreams in how many streams what
// comes next is prefetched.
const integerColumns, integerStreams = 64, 4

// IntegerColumns is cols rounded up to whole blocks, which sums have.
func IntegerColumns(cols int) int {
	return (cols + integerColumns - 1) / integerColumns * integerColumns
}

// IntegerQueries are queries as Scores takes them: integers of 14 bits in two planes of int8, the
// largest 8127, times a factor of their own.
type IntegerQueries struct {
	ShadowQueries
	planes []uint8 // [rows][2][IntegerColumns], on their way to words
	inside []float32
	sums   []float32 // [rows][2]
}

// Pack sets q to the rows of x, at most MaxShadowDim wide and a multiple of IntegerUnit. A row with
// a number that is not finite has NaN for all scores. The memory of q is used again.
func (t IntegerTile) Pack(q *IntegerQueries, x blas32.General) {
	const op = "kernel: IntegerTile.Pack"
	CheckMatrix(op, "x", x, x.Rows, x.Cols)
	if x.Cols < IntegerUnit || x.Cols > MaxShadowDim || x.Cols%IntegerUnit != 0 {
		Panicf("%s: %d columns, want %d to %d, a multiple of %[2]d", op, x.Cols, IntegerUnit, MaxShadowDim)
	}
	q.rows, q.dim = x.Rows, x.Cols
	q.factor, q.inside = sized(q.factor, x.Rows), sized(q.inside, x.Rows)
	if x.Rows == 0 {
		return
	}
	if !t.Fast() {
		integerPeaksGeneric(q.factor, x, nil)
		integerUnits(q.factor, q.inside, mostShadow)
		q.whole = sized(q.whole, x.Rows*x.Cols)
		integerQueriesGeneric(q.whole, x, q.inside)
		return
	}
	integerPeaksSIMD(t.queries.tier, x.Rows, x.Cols, &x.Data[0], 4*x.Stride, &q.factor[0])
	integerUnits(q.factor, q.inside, mostShadow)
	plane := IntegerColumns(x.Cols)
	groups := plane / 4
	q.planes, q.sums = sized(q.planes, x.Rows*2*plane), sized(q.sums, 2*x.Rows)
	q.words, q.bias = sized(q.words, x.Rows*2*groups), sized(q.bias, 2*x.Rows)
	clear(q.planes)
	integerQueriesSIMD(t.queries.tier, x.Rows, x.Cols, &x.Data[0], 4*x.Stride, &q.inside[0], &q.planes[0], plane, &q.sums[0])
	for i, sum := range q.sums {
		q.bias[i] = -128 * int32(sum)
	}
	for i := 0; i < x.Rows; {
		n := 2 * shadowTogether(x.Rows-i)
		set := q.words[2*i*groups:][:n*groups]
		for p := range n {
			from := unsafe.Slice((*int32)(unsafe.Pointer(&q.planes[(2*i+p)*plane])), groups)
			for g, word := range from {
				set[g*n+p] = word
			}
		}
		i += n / 2
	}
}

// integerUnits makes of the largest number of each row what an integer of it is worth, and how
// many integers there are to 1: NaN and 0 of one that is not finite, 0 of one that is as good as 0.
func integerUnits(units, inside []float32, most float32) {
	for i, peak := range units {
		switch {
		case !(peak <= math.MaxFloat32):
			units[i], inside[i] = float32(math.NaN()), 0
		case peak < leastInteger:
			units[i], inside[i] = 0, 0
		default:
			units[i], inside[i] = peak/most, most/peak
		}
	}
}

// leastInteger is the smallest number that is not taken for 0 where a row has no larger one: so
// that units are normal numbers.
const leastInteger = 0x1p-110

// dot is 1 where the processor multiplies int8 in fours.
func (t IntegerTile) dot() int {
	if t.queries.dot {
		return 1
	}
	return 0
}

// Scores sets s[i][j] = q[i].k[j] scales[j] for keys of int8, whose width is that of the
// queries and a multiple of IntegerUnit: float32(sum of integers) * the query's factor *
// scales[j]. s must not overlap the others; next is as in DecodeTile.Scores.
func (t IntegerTile) Scores(s blas32.General, q *IntegerQueries, k Strided, scales []float32, next *byte) {
	const op = "kernel: IntegerTile.Scores"
	k.check(op, "k")
	CheckMatrix(op, "s", s, q.rows, k.Rows)
	CheckLen(op, "scales", len(scales), k.Rows)
	if k.Format != Int8 || k.Cols != q.dim || k.Cols%IntegerUnit != 0 {
		Panicf("%s: k has %d columns, want int8 and as many as q = %d, a multiple of %d", op, k.Cols, q.dim, IntegerUnit)
	}
	if s.Rows == 0 || k.Rows == 0 {
		return
	}
	if !t.Fast() {
		integerScoresGeneric(s, q, k, scales)
		return
	}
	if next == nil {
		next = k.At(0)
	}
	blocks, at := k.Rows/ShadowPanel, mat.Columns(s, 0, 0)
	perCall := max(1, 1<<17/(ShadowPanel*k.Cols))
	for b := 0; b < blocks; b += perCall {
		j := b * ShadowPanel
		at.Data = s.Data[j:]
		t.scoreBlocks(at, q, k.At(j*k.Stride), k.Stride, min(perCall, blocks-b), scales[j:], next)
	}
	switch j := k.Rows - ShadowPanel; {
	case k.Rows%ShadowPanel == 0:
	case blocks > 0: // the last 16 again
		at.Data = s.Data[j:]
		t.scoreBlocks(at, q, k.At(j*k.Stride), k.Stride, 1, scales[j:], next)
	default:
		t.scoreFew(s, q, k, scales)
	}
}

// scoreBlocks does blocks of keys, stride apart.
func (t IntegerTile) scoreBlocks(s blas32.General, q *IntegerQueries, k *byte, stride, blocks int, scales []float32, next *byte) {
	groups, skip := IntegerColumns(q.dim)/4, ShadowPanel*stride-q.dim/integerColumns*integerColumns
	for i := 0; i < q.rows; {
		rows := shadowTogether(q.rows - i)
		integerScoresSIMD(t.queries.tier, rows, t.dot(), q.dim/4, blocks, k, stride, skip, &scales[0], &q.words[2*i*groups], &q.bias[2*i], &q.factor[i],
			next, blocks*ShadowPanel*q.dim/integerStreams, &s.Data[i*s.Stride], 4*s.Stride)
		i += rows
	}
}

// scoreFew does fewer keys than a block has: in a copy, or, where they are wide, one by one as
// if it were all of a block.
func (t IntegerTile) scoreFew(s blas32.General, q *IntegerQueries, k Strided, scales []float32) {
	const narrow, together = 256, 4
	var copied [ShadowPanel * narrow]int8
	var some [ShadowPanel]float32
	var out [together * ShadowPanel]float32
	copies := Strided{Format: Int8, Rows: ShadowPanel, Cols: k.Cols, Stride: k.Cols, Int8: copied[:]}
	copy(some[:], scales)
	for j := 0; j < k.Rows && k.Cols <= narrow; j++ {
		copy(copied[j*k.Cols:], k.Int8[j*k.Stride:][:k.Cols])
	}
	groups := IntegerColumns(q.dim) / 4
	for i := 0; i < q.rows; {
		rows := shadowTogether(q.rows - i)
		block := func(k *byte, stride int) {
			integerScoresSIMD(t.queries.tier, rows, t.dot(), q.dim/4, 1, k, stride, 0, &some[0], &q.words[2*i*groups], &q.bias[2*i], &q.factor[i],
				k, 0, &out[0], 4*ShadowPanel)
		}
		if k.Cols <= narrow {
			block(copies.At(0), k.Cols)
			for r := range rows {
				copy(s.Data[(i+r)*s.Stride:][:k.Rows], out[r*ShadowPanel:])
			}
		} else {
			for j := range k.Rows {
				some[0] = scales[j]
				block(k.At(j*k.Stride), 0)
				for r := range rows {
					s.Data[(i+r)*s.Stride+j] = out[r*ShadowPanel]
				}
			}
		}
		i += rows
	}
}

// IntegerWeights are a tile's weights of some rows, times the scales of the values, in integers
// of 14 bits: [rows][2][IntegerKeys] of 7 bits each, times a unit of the row.
type IntegerWeights struct {
	rows          int
	planes        []uint8
	units, inside []float32
}

// Reserve makes room for rows.
func (w *IntegerWeights) Reserve(rows int) {
	w.rows = rows
	w.planes, w.units, w.inside = sized(w.planes, rows*2*IntegerKeys), sized(w.units, rows), sized(w.inside, rows)
}

// mostWeight is the largest integer of a weight.
const mostWeight = 127*128 + 127

// Weigh sets w to the weights p [rows, keys] times scales, at most IntegerKeys of them. Those of
// values with a negative scale, which stand turned, are left out, or, with turned, all others.
// A unit is the row's largest product over mostWeight, turned ones included, and NaN where one
// is not finite.
func (t IntegerTile) Weigh(w *IntegerWeights, p blas32.General, scales []float32, turned bool) {
	const op = "kernel: IntegerTile.Weigh"
	CheckMatrix(op, "p", p, p.Rows, p.Cols)
	CheckLen(op, "scales", len(scales), p.Cols)
	if p.Cols > IntegerKeys {
		Panicf("%s: %d keys, want at most %d", op, p.Cols, IntegerKeys)
	}
	w.Reserve(p.Rows)
	if p.Rows == 0 || p.Cols == 0 {
		clear(w.units)
		return
	}
	if t.Fast() {
		integerScaledPeaksSIMD(t.queries.tier, p.Rows, p.Cols, &p.Data[0], 4*p.Stride, &scales[0], &w.units[0])
	} else {
		integerPeaksGeneric(w.units, p, scales)
	}
	integerUnits(w.units, w.inside, mostWeight)
	for i := 0; i < p.Rows && turned; i++ {
		w.units[i], w.inside[i] = -w.units[i], -w.inside[i]
	}
	if t.Fast() {
		integerPlanesSIMD(t.queries.tier, p.Rows, p.Cols, &p.Data[0], 4*p.Stride, &scales[0], &w.inside[0], &w.planes[0])
	} else {
		integerPlanesGeneric(w.planes, p, scales, w.inside)
	}
}

// Values adds to sums [rows][IntegerColumns(v.Cols)] the values of int8 times the weights from
// key at on. Columns do not stand in their order there: Add knows it. next is as in
// DecodeTile.Values.
func (t IntegerTile) Values(sums []int32, w *IntegerWeights, at int, v Strided, next *byte) {
	const op = "kernel: IntegerTile.Values"
	v.check(op, "v")
	cols := IntegerColumns(v.Cols)
	CheckLen(op, "sums", len(sums), w.rows*cols)
	if v.Format != Int8 || v.Cols%IntegerUnit != 0 || at < 0 || v.Rows > IntegerKeys-at {
		Panicf("%s: v is %d x %d from key %d on, want int8, at most %d keys and a multiple of %d columns", op, v.Rows, v.Cols, at, IntegerKeys, IntegerUnit)
	}
	if w.rows == 0 || v.Rows == 0 {
		return
	}
	if !t.Fast() {
		integerValuesGeneric(sums, w, at, v)
		return
	}
	if next == nil {
		next = v.At(0)
	}
	if groups := v.Rows / 4; groups > 0 {
		t.valueGroups(sums, w, at, v.At(0), v.Stride, groups, v.Cols, next)
	}
	for j := v.Rows / 4 * 4; j < v.Rows; j++ {
		if from := v.Rows - 4; from >= 0 { // the last four again, those before j without weight
			t.valueSome(sums, w, at+from, j-from, 4, v.At(from*v.Stride), v.Stride, v.Cols)
			break
		}
		from := min(at+j, IntegerKeys-4) // the same key four times, all but one without weight
		t.valueSome(sums, w, from, at+j-from, at+j-from+1, v.At(j*v.Stride), 0, v.Cols)
	}
}

// valueGroups does groups of four keys, stride apart.
func (t IntegerTile) valueGroups(sums []int32, w *IntegerWeights, at int, v *byte, stride, groups, cols int, next *byte) {
	for i := 0; i < w.rows; {
		rows := shadowTogether(w.rows - i)
		t.valueColumns(sums, w, i, rows, at, v, stride, groups, cols, next)
		i += rows
	}
}

// valueSome does one group of four keys as if those before from and from to on had no weight.
func (t IntegerTile) valueSome(sums []int32, w *IntegerWeights, at, from, to int, v *byte, stride, cols int) {
	for i := 0; i < w.rows; {
		rows := shadowTogether(w.rows - i)
		var saved [8][4]uint8
		for p := range saved[:2*rows] {
			four := w.planes[(2*i+p)*IntegerKeys+at:][:4]
			copy(saved[p][:], four)
			clear(four[:from])
			clear(four[to:])
		}
		t.valueColumns(sums, w, i, rows, at, v, stride, 1, cols, v)
		for p := range saved[:2*rows] {
			copy(w.planes[(2*i+p)*IntegerKeys+at:], saved[p][:])
		}
		i += rows
	}
}

func (t IntegerTile) valueColumns(sums []int32, w *IntegerWeights, i, rows, at int, v *byte, stride, groups, cols int, next *byte) {
	width := IntegerColumns(cols)
	for c := 0; c < cols; c += integerColumns {
		share := (*byte)(unsafe.Add(unsafe.Pointer(next), 4*groups*c)) // of what is prefetched
		integerValuesSIMD(t.queries.tier, rows, t.dot(), min(integerColumns, cols-c)/4, groups, &w.planes[2*i*IntegerKeys+at], (*byte)(unsafe.Add(unsafe.Pointer(v), c)), stride,
			share, 64*groups, &sums[i*width+c], 4*width)
	}
}

// Add sets o[i] = factor[i] o[i] + the unit of row i of w times sums[i], of o.Cols columns.
func (t IntegerTile) Add(o blas32.General, w *IntegerWeights, sums []int32, factor []float32) {
	const op = "kernel: IntegerTile.Add"
	cols := IntegerColumns(o.Cols)
	CheckMatrix(op, "o", o, w.rows, o.Cols)
	CheckLen(op, "sums", len(sums), w.rows*cols)
	CheckLen(op, "factor", len(factor), w.rows)
	if o.Rows == 0 || o.Cols == 0 {
		return
	}
	if !t.Fast() {
		integerAddGeneric(o, w, sums, factor)
		return
	}
	whole := o.Cols / integerColumns * integerColumns
	if whole > 0 {
		integerSumsSIMD(t.queries.tier, o.Rows, whole, &sums[0], 4*cols, &w.units[0], &o.Data[0], 4*o.Stride, &factor[0])
	}
	if whole == o.Cols {
		return
	}
	for i := range o.Rows {
		var last [integerColumns]float32
		to := o.Data[i*o.Stride:][whole:o.Cols]
		copy(last[:], to)
		integerSumsSIMD(t.queries.tier, 1, integerColumns, &sums[i*cols+whole], 0, &w.units[i], &last[0], 0, &factor[i])
		copy(to, last[:])
	}
}
