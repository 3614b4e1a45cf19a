package kernel

import (
	"math"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/internal/isa"
	"github.com/subquad/subquad/internal/kernel/scalar"
)

// A shadow of four bits has half the bytes of one of eight: numbers of a key lie between -7
// and 7, and every 32 of them have a scale. Byte j of word l of vector v of a panel
// [4*blocks][16][4] has number 8v+j of key l in its low half and number 8v+4+j in its high
// half, each plus 8. Scales are [panels][blocks][16].

// ShadowBlocks is how many scales a key of a width has in four bits.
func ShadowBlocks(dim int) int { return (dim + 31) / 32 }

// QuantizeNibbles sets key l of a panel to x, and its scales; it returns the sums of the
// squares of what that leaves over, and of what it stores.
func QuantizeNibbles(panel []uint8, scale []float32, l int, x []float32) (off, length float64) {
	blocks := ShadowBlocks(len(x))
	CheckLen("kernel: QuantizeNibbles", "panel", len(panel), blocks*16*ShadowPanel)
	CheckLen("kernel: QuantizeNibbles", "scale", len(scale), blocks*ShadowPanel)
	for b := range blocks {
		part := x[32*b : min(32*b+32, len(x))]
		size := scalar.Largest(part) / 7
		scale[b*ShadowPanel+l] = size
		for d := range 32 {
			q := 0
			if d < len(part) && size > 0 {
				q = int(min(max(math.RoundToEven(float64(part[d])/float64(size)), -7), 7))
			}
			at := &panel[(4*b+d/8)*4*ShadowPanel+4*l+d%4]
			if d%8 < 4 {
				*at = *at&0xf0 | uint8(q+8)
			} else {
				*at = *at&0x0f | uint8(q+8)<<4
			}
			if d < len(part) {
				e := float64(part[d]) - float64(size)*float64(q)
				off += e * e
				length += float64(size) * float64(q) * float64(size) * float64(q)
			}
		}
	}
	return off, length
}

// PackNibbles is Pack for keys of four bits.
func (t ShadowTile) PackNibbles(q *ShadowQueries, x blas32.General) {
	t.pack(q, x, 8*ShadowBlocks(x.Cols))
	blocks := ShadowBlocks(x.Cols)
	q.blocks = sized(q.blocks, 2*x.Rows*blocks)
	for i := 0; i < x.Rows; {
		n := shadowTogether(x.Rows - i)
		for b := range blocks {
			for r := range n {
				for p := range 2 {
					sum := int32(0)
					for g := 8 * b; g < 8*b+8; g++ {
						word := q.words[2*i*8*blocks+(g*n+r)*2+p]
						sum += int32(int8(word)) + int32(int8(word>>8)) + int32(int8(word>>16)) + int32(int8(word>>24))
					}
					q.blocks[2*i*blocks+(b*n+r)*2+p] = -8 * sum
				}
			}
		}
		i += n
	}
}

// ScoresNibbles is Scores of keys of four bits, for queries of PackNibbles: the sum over
// blocks, in their order, of float32(sum of integers) * scale, times the query's factor.
func (t ShadowTile) ScoresNibbles(s blas32.General, q *ShadowQueries, k []uint8, scale []float32, next []uint8) {
	const op = "kernel: ShadowTile.ScoresNibbles"
	CheckMatrix(op, "s", s, q.rows, s.Cols)
	if s.Cols%ShadowPanel != 0 {
		Panicf("%s: s has %d columns, want whole panels of %d", op, s.Cols, ShadowPanel)
	}
	panels, blocks := s.Cols/ShadowPanel, ShadowBlocks(q.dim)
	bytes, scales := 16*blocks*ShadowPanel, blocks*ShadowPanel // of a panel
	CheckAtLeast(op, "k", len(k), panels*bytes)
	CheckAtLeast(op, "scale", len(scale), panels*scales)
	if panels == 0 {
		return
	}
	if len(next) < panels*bytes {
		next = k
	}
	perCall := max(1, (1<<15)/bytes)
	for p := 0; p < panels; p += perCall {
		n := min(perCall, panels-p)
		for i := 0; i < q.rows; {
			rows := shadowTogether(q.rows - i)
			if t.tier == isa.Generic {
				for r := i; r < i+rows; r++ {
					nibblesGeneric(s.Data[r*s.Stride+p*ShadowPanel:][:n*ShadowPanel], q.whole[r*32*blocks:][:32*blocks], k[p*bytes:][:n*bytes], scale[p*scales:], q.factor[r])
				}
			} else {
				t.nibbles(rows, blocks, n, &k[p*bytes], &scale[p*scales], &q.words[2*i*8*blocks], &q.blocks[2*i*blocks], &q.factor[i], &next[p*bytes], &s.Data[i*s.Stride+p*ShadowPanel], 4*s.Stride)
			}
			i += rows
		}
	}
}

func (t ShadowTile) nibbles(rows, blocks, panels int, k *byte, scale *float32, q, bias *int32, factor *float32, next *byte, s *float32, sRow int) {
	switch {
	case t.dot && rows == 4:
		shadowNibbles4DotSIMD(t.tier, blocks, panels, k, scale, q, bias, factor, next, s, sRow)
	case t.dot && rows == 2:
		shadowNibbles2DotSIMD(t.tier, blocks, panels, k, scale, q, bias, factor, next, s, sRow)
	case t.dot:
		shadowNibbles1DotSIMD(t.tier, blocks, panels, k, scale, q, bias, factor, next, s, sRow)
	case rows == 4:
		shadowNibbles4SIMD(t.tier, blocks, panels, k, scale, q, bias, factor, next, s, sRow)
	case rows == 2:
		shadowNibbles2SIMD(t.tier, blocks, panels, k, scale, q, bias, factor, next, s, sRow)
	default:
		shadowNibbles1SIMD(t.tier, blocks, panels, k, scale, q, bias, factor, next, s, sRow)
	}
}

// nibblesGeneric is ScoresNibbles of one query.
func nibblesGeneric(s []float32, q []int32, k []uint8, scale []float32, factor float32) {
	blocks := len(q) / 32
	for p := 0; p < len(s); p += ShadowPanel {
		panel := k[p*16*blocks:][:16*blocks*ShadowPanel]
		var total [ShadowPanel]float32
		for b := range blocks {
			var sums [ShadowPanel]int32
			for v := range 4 {
				x := q[32*b+8*v:][:8]
				four := panel[(4*b+v)*4*ShadowPanel:][:4*ShadowPanel]
				for l := range sums {
					y := four[4*l:][:4]
					sums[l] += x[0]*(int32(y[0]&15)-8) + x[1]*(int32(y[1]&15)-8) + x[2]*(int32(y[2]&15)-8) + x[3]*(int32(y[3]&15)-8) +
						x[4]*(int32(y[0]>>4)-8) + x[5]*(int32(y[1]>>4)-8) + x[6]*(int32(y[2]>>4)-8) + x[7]*(int32(y[3]>>4)-8)
				}
			}
			size := scale[p*blocks+b*ShadowPanel:][:ShadowPanel]
			for l, sum := range sums {
				total[l] += float32(float32(sum) * size[l])
			}
		}
		for l, x := range total {
			s[p+l] = x * factor
		}
	}
}
