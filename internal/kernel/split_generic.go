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
			var sizes [mostParts]extremes
			for q := range parts {
				sizes[q] = widenSplit(&wide[q], b[panel*bPanel+s*size+q*splitPart:][:splitPart])
			}
			for i := range rows {
				sum := (*[splitCols]float32)(c[i*cRow+panel*splitCols:])
				if s == 0 && !add {
					*sum = [splitCols]float32{}
				}
				for _, term := range splitTerms[parts] {
					addTerm(sum, (*[splitStep]uint16)(a[i*aRow+(s*parts+term[0])*splitStep:]), &wide[term[1]], sizes[term[1]])
				}
			}
		}
	}
}

// extremes are the least magnitude beside 0 of some bfloat16, less 1, and the largest, as bits.
type extremes struct{ least, most uint16 }

// magnitudesOf returns those of bits.
func magnitudesOf(bits []uint16) extremes {
	least, most := uint32(math.MaxUint16), uint32(0)
	for _, v := range bits {
		m := uint32(v) & 0x7fff
		least, most = min(least, (m-1)&math.MaxUint16), max(most, m)
	}
	return extremes{uint16(least), uint16(most)}
}

// exact tells whether no product of two bfloat16 of these magnitudes is so tiny that sums of
// products could be subnormal, nor beyond float32, nor NaN. Products have 16 bits: from 2^-110
// on none has one below 2^-126, nor has a sum.
func (e extremes) exact(f extremes) bool {
	least := scalar.BFloat16Of(e.least+1) * scalar.BFloat16Of(f.least+1)
	most := scalar.BFloat16Of(e.most) * scalar.BFloat16Of(f.most)
	return (e.most == 0 || f.most == 0 || least >= 0x1p-110) && most <= math.MaxFloat32
}

// widenSplit sets dst to a part of a step of a panel, in float32.
func widenSplit(dst *[splitStep][splitCols]float32, b []uint16) extremes {
	for i := 0; i < splitStep; i += 2 {
		for j := 0; j < splitCols; j += 16 {
			pairs := (*[splitStep]uint16)(b[j/16*splitTile+i*16:])
			x, y := (*[16]float32)(dst[i][j:]), (*[16]float32)(dst[i+1][j:])
			for l := range x {
				x[l], y[l] = scalar.BFloat16Of(pairs[2*l]), scalar.BFloat16Of(pairs[2*l+1])
			}
		}
	}
	return magnitudesOf(b)
}

// addTerm adds the product of a row of a part of a and a part of b, whose extremes are
// given, to c. A product of two bfloat16 is exact in float32, so that it makes no difference
// whether it is fused into the sum, unless it is tiny or too large for float32, from where a fused
// sum may come back: then sums are made in float64.
func addTerm(c *[splitCols]float32, a *[splitStep]uint16, b *[splitStep][splitCols]float32, sizes extremes) {
	var row [splitStep]float32
	for k, v := range a {
		row[k] = scalar.BFloat16Of(v)
	}
	var even, odd [splitCols]float32
	if magnitudesOf(a[:]).exact(sizes) {
		sumPairs(&even, &odd, &row, b)
	} else {
		for k := 0; k < splitStep; k += 2 {
			for j := range even {
				even[j] = scalar.FusedFlushed(row[k], b[k][j], even[j])
				odd[j] = scalar.FusedFlushed(row[k+1], b[k+1][j], odd[j])
			}
		}
	}
	for j := range c {
		c[j] = scalar.Flushed(scalar.Flushed(c[j]) + scalar.Flushed(even[j]+odd[j]))
	}
}

// sumPairs makes the sums of even and of odd k, four columns at a time in registers.
func sumPairs(even, odd *[splitCols]float32, a *[splitStep]float32, b *[splitStep][splitCols]float32) {
	for j := 0; j < splitCols; j += 4 {
		var e0, e1, e2, e3, o0, o1, o2, o3 float32
		for k := 0; k < splitStep; k += 2 {
			u, v := a[k], a[k+1]
			x, y := (*[4]float32)(b[k][j:]), (*[4]float32)(b[k+1][j:])
			e0 += float32(u * x[0])
			e1 += float32(u * x[1])
			e2 += float32(u * x[2])
			e3 += float32(u * x[3])
			o0 += float32(v * y[0])
			o1 += float32(v * y[1])
			o2 += float32(v * y[2])
			o3 += float32(v * y[3])
		}
		*(*[4]float32)(even[j:]) = [4]float32{e0, e1, e2, e3}
		*(*[4]float32)(odd[j:]) = [4]float32{o0, o1, o2, o3}
	}
}
