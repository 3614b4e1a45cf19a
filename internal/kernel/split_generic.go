package kernel

import (
	"math"

	"github.com/subquad/subquad/internal/kernel/scalar"
)

// unit tells whether a matrix unit makes products in bfloat16. Its methods have a portable
// body, the specification, and one for the unit.
type unit bool

// splitRows splits rows of x, steps of 32 elements each, into a strip, which may be x where
// there are one or two parts.
func (u unit) splitRows(parts, rows, steps int, x []float32, xRow int, dst []uint16, dstRow int) {
	_, _ = x[(rows-1)*xRow+steps*splitStep-1], dst[(rows-1)*dstRow+steps*parts*splitStep-1]
	if u {
		splitRowsUnit(parts, rows, steps, x, xRow, dst, dstRow)
		return
	}
	var split [mostParts]uint16
	for i := range rows {
		for s := range steps {
			from := *(*[splitStep]float32)(x[i*xRow+s*splitStep:])
			to := dst[i*dstRow+s*parts*splitStep:][:parts*splitStep]
			for l, v := range from {
				scalar.Split(split[:parts], v)
				for q := range parts {
					to[q*splitStep+l] = split[q]
				}
			}
		}
	}
}

// splitPairs splits 16 columns of pairs of rows of x into parts, those of a pair side by side
// as a panel has them, and tells whether all first parts are finite.
func (u unit) splitPairs(parts, pairs int, x []float32, xRow int, dst []uint16) (finite bool) {
	_, _ = x[(2*pairs-1)*xRow+15], dst[(parts-1)*splitPart+pairs*32-1]
	if u {
		return splitPairsUnit(parts, pairs, x, xRow, dst)
	}
	var split [mostParts]uint16
	finite = true
	for i := range 2 * pairs {
		for c, v := range x[i*xRow:][:16] {
			scalar.Split(split[:parts], v)
			finite = finite && scalar.BFloat16Finite(split[0])
			at := (i/2*16+c)*2 + i%2
			for q := range parts {
				dst[at+q*splitPart] = split[q]
			}
		}
	}
	return finite
}

// addSplit sets c to the products of a strip a with whole panels of b, or adds them to it. For
// each step and each term, in order, it makes two sums over the step's k, of even and of odd ones, and
// adds the two, and then that to c: what TDPBF16PS does. Subnormal sums become zero, and
// subnormal elements count as zero.
func (u unit) addSplit(parts, rows, steps, panels int, a []uint16, aRow int, b []uint16, bPanel int, c []float32, cRow int, add bool) {
	size := parts * splitPart
	_, _, _ = a[(rows-1)*aRow+steps*parts*splitStep-1], b[(panels-1)*bPanel+steps*size-1], c[(rows-1)*cRow+panels*splitCols-1]
	if u {
		addSplitUnit(parts, rows, steps, panels, a, aRow, b, bPanel, c, cRow, add)
		return
	}
	for panel := range panels {
		for s := range steps {
			var wide [mostParts][splitStep][splitCols]float32
			var least [mostParts]float32
			for q := range parts {
				least[q] = widenSplit(&wide[q], b[panel*bPanel+s*size+q*splitPart:])
			}
			for i := range rows {
				sum := (*[splitCols]float32)(c[i*cRow+panel*splitCols:])
				if s == 0 && !add {
					*sum = [splitCols]float32{}
				}
				for _, term := range splitTerms[parts] {
					addTerm(sum, a[i*aRow+(s*parts+term[0])*splitStep:], &wide[term[1]], least[term[1]])
				}
			}
		}
	}
}

// widenSplit sets dst to a part of a step of a panel, in float32, and returns the least
// magnitude beside 0.
func widenSplit(dst *[splitStep][splitCols]float32, b []uint16) float32 {
	least := float32(math.MaxFloat32)
	for i := range dst {
		for j := range dst[i] {
			x := scalar.BFloat16Of(b[j/16*splitTile+(i/2*16+j%16)*2+i%2])
			dst[i][j] = x
			least = leastOf(least, x)
		}
	}
	return least
}

// leastOf is the lesser of least and |x|, where that is not 0.
func leastOf(least, x float32) float32 {
	if x < 0 {
		x = -x
	}
	if x > 0 && x < least {
		return x
	}
	return least
}

// addTerm adds the product of a row of a part of a and a part of b, whose least magnitude is
// given, to c. A product of two bfloat16 is exact in float32, so that it makes no difference
// whether it is fused into the sum, unless it is tiny: then fused sums are made in float64.
func addTerm(c *[splitCols]float32, a []uint16, b *[splitStep][splitCols]float32, least float32) {
	var even, odd [splitCols]float32
	own := float32(math.MaxFloat32)
	for _, v := range a[:splitStep] {
		own = leastOf(own, scalar.BFloat16Of(v))
	}
	// Products have 16 bits. From 2^-110 on none has one below 2^-126, nor has a sum.
	tiny := own*least < 0x1p-110
	for k := 0; k < splitStep; k += 2 {
		u, v := scalar.BFloat16Of(a[k]), scalar.BFloat16Of(a[k+1])
		x, y := &b[k], &b[k+1]
		if tiny {
			for j := range even {
				even[j] = scalar.FusedFlushed(u, x[j], even[j])
				odd[j] = scalar.FusedFlushed(v, y[j], odd[j])
			}
			continue
		}
		for j := range even {
			even[j] += float32(u * x[j])
			odd[j] += float32(v * y[j])
		}
	}
	for j := range c {
		c[j] = scalar.Flushed(scalar.Flushed(c[j]) + scalar.Flushed(even[j]+odd[j]))
	}
}
