package kernel

import (
	"math"
	"unsafe"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/kernel/scalar"
)

// ShadowPanel is how many keys stand side by side in a panel of a shadow.
const ShadowPanel = 16

// ShadowTile is the work of finding, among very many keys, those that queries give weight
// to: scores with a copy of the keys in int8, by products of integers, and sums of their
// exponentials panel by panel.
//
// A panel has 16 keys: numbers 4g to 4g+3 of all of them, one key after the other, then
// the next four, [groups][16][4], with zeros where a key has no more. Numbers lie between
// -127 and 127, and each key has a scale.
//
// Scores are those of integers until the very end and the same in every tier, to the bit.
// The tier is captured when the value is made; the zero value is the generic tier.
type ShadowTile struct {
	tier isa.Tier
	dot  bool
}

// NewShadowTile returns the tile of the active tier.
func NewShadowTile() ShadowTile { return ShadowTile{isa.Active(), isa.Has(isa.VNNI)} }

// ShadowGroups is how many groups of four numbers a key of a width has.
func ShadowGroups(dim int) int { return (dim + 3) / 4 }

// MaxShadowDim is the widest key: sums of integers stay below 2^31.
const MaxShadowDim = 2048

// ShadowQueries are queries as Scores takes them: integers of 14 bits in two planes of
// int8, largest 8127, times a factor of their own.
type ShadowQueries struct {
	rows, dim int
	words     []int32 // of every set of 4, 2 or 1 rows: [groups][rows][2]
	bias      []int32 // [rows][2], of every set likewise
	factor    []float32
	whole     []int32 // [rows][4*groups], of the generic tier
	blocks    []int32 // bias of keys of four bits, [blocks][rows][2] of every set
}

// Rows is how many queries there are.
func (q *ShadowQueries) Rows() int { return q.rows }

// Error is no less than the largest error of a number of query i: half a unit of its
// integers.
func (q *ShadowQueries) Error(i int) float32 { return max(0.501*q.factor[i], 1e-40) }

// most is the largest integer of a query: 63 in the first plane and 63 in the second.
const mostShadow = 63*128 + 63

// Pack sets q to rows of x, of finite numbers. Its memory is used again.
func (t ShadowTile) Pack(q *ShadowQueries, x blas32.General) { t.pack(q, x, ShadowGroups(x.Cols)) }

// pack is Pack into a number of groups.
func (t ShadowTile) pack(q *ShadowQueries, x blas32.General, groups int) {
	const op = "kernel: ShadowTile.Pack"
	CheckMatrix(op, "x", x, x.Rows, x.Cols)
	if x.Cols < 1 || x.Cols > MaxShadowDim {
		Panicf("%s: %d columns, want 1 to %d", op, x.Cols, MaxShadowDim)
	}
	q.rows, q.dim = x.Rows, x.Cols
	q.words, q.bias, q.factor = sized(q.words, x.Rows*groups*2), sized(q.bias, 2*x.Rows), sized(q.factor, x.Rows)
	q.whole = q.whole[:0]
	if t.tier == isa.Generic {
		q.whole = sized(q.whole, x.Rows*4*groups)
	}
	clear(q.words)
	clear(q.whole)
	for i := 0; i < x.Rows; {
		n := shadowTogether(x.Rows - i)
		for r := range n {
			row := x.Data[(i+r)*x.Stride:][:x.Cols]
			factor := scalar.Largest(row) / mostShadow
			q.factor[i+r] = factor
			var sum [2]int32
			for d, v := range row {
				whole := int32(0)
				if factor > 0 {
					whole = min(max(int32(math.RoundToEven(float64(v)/float64(factor))), -mostShadow), mostShadow)
				}
				planes := [2]int32{(whole + 64) >> 7, (whole+64)&127 - 64}
				for p, v := range planes {
					q.words[2*i*groups+(d/4*n+r)*2+p] |= int32(uint32(uint8(v)) << (8 * (d % 4)))
					sum[p] += v
				}
				if len(q.whole) > 0 {
					q.whole[(i+r)*4*groups+d] = whole
				}
			}
			for p := range sum {
				if t.tier == isa.NEON {
					sum[p] = 0 // its factors have a sign
				}
				q.bias[2*(i+r)+p] = -128 * sum[p]
			}
		}
		i += n
	}
}

func sized[T any](old []T, n int) []T {
	if cap(old) < n {
		return make([]T, n)
	}
	return old[:n]
}

// shadowTogether returns how many of the rows that are left a kernel takes at once.
func shadowTogether(left int) int {
	switch {
	case left >= 4:
		return 4
	case left >= 2:
		return 2
	}
	return 1
}

// Scores sets s[i][j] = q[i].k[j] for keys k of panels [panels][groups][16][4] with a
// scale each, panels s.Cols/16: float32(sum of integers) * scale[j] * the query's factor.
// s must not overlap the others. While it goes over the keys it prefetches as many bytes
// of next, the keys that come after, which may be nil.
func (t ShadowTile) Scores(s blas32.General, q *ShadowQueries, k []int8, scale []float32, next []int8) {
	const op = "kernel: ShadowTile.Scores"
	CheckMatrix(op, "s", s, q.rows, s.Cols)
	if s.Cols%ShadowPanel != 0 {
		Panicf("%s: s has %d columns, want whole panels of %d", op, s.Cols, ShadowPanel)
	}
	panels, groups := s.Cols/ShadowPanel, ShadowGroups(q.dim)
	bytes := 4 * groups * ShadowPanel // of a panel
	CheckAtLeast(op, "k", len(k), panels*bytes)
	CheckAtLeast(op, "scale", len(scale), s.Cols)
	if panels == 0 {
		return
	}
	if len(next) < panels*bytes {
		next = k
	}
	perCall := max(1, (1<<16)/bytes)
	for p := 0; p < panels; p += perCall {
		n := min(perCall, panels-p)
		for i := 0; i < q.rows; {
			rows := shadowTogether(q.rows - i)
			if t.tier == isa.Generic {
				for r := i; r < i+rows; r++ {
					shadowGeneric(s.Data[r*s.Stride+p*ShadowPanel:][:n*ShadowPanel], q.whole[r*4*groups:][:4*groups], k[p*bytes:][:n*bytes], scale[p*ShadowPanel:], q.factor[r])
				}
			} else {
				t.scores(rows, groups, n, (*byte)(unsafe.Pointer(&k[p*bytes])), &scale[p*ShadowPanel], &q.words[2*i*groups], &q.bias[2*i], &q.factor[i], (*byte)(unsafe.Pointer(&next[p*bytes])), &s.Data[i*s.Stride+p*ShadowPanel], 4*s.Stride)
			}
			i += rows
		}
	}
}

func (t ShadowTile) scores(rows, groups, panels int, k *byte, scale *float32, q, bias *int32, factor *float32, next *byte, s *float32, sRow int) {
	switch {
	case t.dot && rows == 4:
		shadowScores4DotSIMD(t.tier, groups, panels, k, scale, q, bias, factor, next, s, sRow)
	case t.dot && rows == 2:
		shadowScores2DotSIMD(t.tier, groups, panels, k, scale, q, bias, factor, next, s, sRow)
	case t.dot:
		shadowScores1DotSIMD(t.tier, groups, panels, k, scale, q, bias, factor, next, s, sRow)
	case rows == 4:
		shadowScores4SIMD(t.tier, groups, panels, k, scale, q, bias, factor, next, s, sRow)
	case rows == 2:
		shadowScores2SIMD(t.tier, groups, panels, k, scale, q, bias, factor, next, s, sRow)
	default:
		shadowScores1SIMD(t.tier, groups, panels, k, scale, q, bias, factor, next, s, sRow)
	}
}

// shadowGeneric is Scores of one query.
func shadowGeneric(s []float32, q []int32, k []int8, scale []float32, factor float32) {
	for p := 0; p < len(s); p += ShadowPanel {
		panel := k[p*len(q):][:ShadowPanel*len(q)]
		var sums [ShadowPanel]int32
		for g := 0; g < len(q); g += 4 {
			q0, q1, q2, q3 := q[g], q[g+1], q[g+2], q[g+3]
			four := panel[g*ShadowPanel:][:4*ShadowPanel]
			for j := range sums {
				x := four[4*j:][:4]
				sums[j] += q0*int32(x[0]) + q1*int32(x[1]) + q2*int32(x[2]) + q3*int32(x[3])
			}
		}
		for j, sum := range sums {
			s[p+j] = float32(float32(sum)*scale[p+j]) * factor
		}
	}
}

// Weights sets sums[p] to the sum over the scores s of panel p of exp(s - top), for an
// even number of pairs of panels: four at a time.
func (t ShadowTile) Weights(sums, s []float32, top float32) {
	const op = "kernel: ShadowTile.Weights"
	CheckLen(op, "s", len(s), len(sums)*ShadowPanel)
	if len(sums)%4 != 0 {
		Panicf("%s: %d panels, want a multiple of 4", op, len(sums))
	}
	if t.tier == isa.Generic {
		for p := range sums {
			sum := float32(0)
			for _, x := range s[p*ShadowPanel:][:ShadowPanel] {
				sum += scalar.Exp(x - top)
			}
			sums[p] = sum
		}
		return
	}
	const perCall = Chunk / ShadowPanel
	for p := 0; p < len(sums); p += perCall {
		n := min(perCall, len(sums)-p)
		shadowWeightsSIMD(t.tier, n/4, top, &s[p*ShadowPanel], &sums[p])
	}
}
