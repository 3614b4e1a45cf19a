package kernel

import "github.com/subquad/subquad/internal/kernel/scalar"

// unit tells whether a matrix unit makes products in bfloat16. Its methods have a portable
// body, the specification, and one for the unit.
type unit bool

// splitRows splits rows of x, steps of 32 elements each, into a strip.
func (u unit) splitRows(parts, rows, steps int, x []float32, xRow int, dst []uint16) {
	_, _ = x[(rows-1)*xRow+steps*splitStep-1], dst[((steps-1)*parts+parts-1)*splitPart+rows*splitStep-1]
	if u {
		splitRowsUnit(parts, rows, steps, x, xRow, dst)
		return
	}
	var split [mostParts]uint16
	for i := range rows {
		for l, v := range x[i*xRow:][:steps*splitStep] {
			scalar.Split(split[:parts], v)
			at := l/splitStep*parts*splitPart + i*splitStep + l%splitStep
			for q := range parts {
				dst[at+q*splitPart] = split[q]
			}
		}
	}
}

// addSplit adds the products of a strip a with whole panels of b to c. For each step and
// each term, in order, it makes two sums over the step's k, of even and of odd ones, and
// adds the two, and then that to c: what TDPBF16PS does. A product of two bfloat16 is
// exact in float32, so that it makes no difference whether it is fused into the sum.
// Subnormal sums become zero; what is said of bits holds where no element of a and b but 0
// is below 2^-40, since no product or sum is subnormal then.
func (u unit) addSplit(parts, rows, steps, panels int, a, b []uint16, bPanel int, c []float32, cRow int) {
	size := parts * splitPart
	_, _, _ = a[steps*size-splitPart+rows*splitStep-1], b[(panels-1)*bPanel+steps*size-1], c[(rows-1)*cRow+panels*splitCols-1]
	if u {
		addSplitUnit(parts, rows, steps, panels, a, b, bPanel, c, cRow)
		return
	}
	for panel := range panels {
		for s := range steps {
			var wide [mostParts][splitStep][splitCols]float32
			for q := range parts {
				widenSplit(&wide[q], b[panel*bPanel+s*size+q*splitPart:])
			}
			for i := range rows {
				sum := (*[splitCols]float32)(c[i*cRow+panel*splitCols:])
				for _, term := range splitTerms[parts] {
					addTerm(sum, a[s*size+term[0]*splitPart+i*splitStep:], &wide[term[1]])
				}
			}
		}
	}
}

// widenSplit sets dst to a part of a step of a panel, in float32.
func widenSplit(dst *[splitStep][splitCols]float32, b []uint16) {
	for i := range dst {
		for j := range dst[i] {
			dst[i][j] = scalar.BFloat16Of(b[j/16*splitTile+(i/2*16+j%16)*2+i%2])
		}
	}
}

// addTerm adds the product of a row of a part of a and a part of b to c.
func addTerm(c *[splitCols]float32, a []uint16, b *[splitStep][splitCols]float32) {
	var even, odd [splitCols]float32
	for k := 0; k < splitStep; k += 2 {
		u, v := scalar.BFloat16Of(a[k]), scalar.BFloat16Of(a[k+1])
		x, y := &b[k], &b[k+1]
		for j := range even {
			even[j] += float32(u * x[j])
			odd[j] += float32(v * y[j])
		}
	}
	for j := range c {
		c[j] = scalar.Flushed(c[j] + scalar.Flushed(even[j]+odd[j]))
	}
}
