package rope

import "math"

// XPos is the decay of xPos (Sun et al. 2022, arXiv 2212.10554): pair i of a query
// at position p is multiplied by zeta_i^((p-center)/ScaleBase), that of a key by
// its inverse, zeta_i = (2i + 0.4 dim) / (1.4 dim), so that a logit's pair i decays
// with the distance as zeta_i^(distance/ScaleBase). It needs causal attention.
//
// The center cancels out, but it decides whether float32 can hold the factors:
// 10^5 tokens away they overflow. So keys are kept unrotated, and a Call gives
// the center: with that of a block of queries, its keys before the block decay
// towards 0 and nothing grows by more than the block is long.
type XPos struct {
	// ScaleBase is in positions; 0 is 512.
	ScaleBase float64
}

// decays returns ln zeta / ScaleBase of each pair.
func (x XPos) decays(dim int) ([]float64, error) {
	base := or(x.ScaleBase, 512)
	if err := positive("XPos.ScaleBase", base); err != nil {
		return nil, err
	}
	d := make([]float64, dim/2)
	for i := range d {
		d[i] = math.Log((float64(2*i)+0.4*float64(dim))/(1.4*float64(dim))) / base
	}
	return d, nil
}

// exponent is the power to which a row's zeta is raised.
func (r *Rotation) exponent(c *Call, row int) float64 {
	whole, fraction, _ := c.Positions.place(row, 0, r.axes)
	e := float64(whole-c.Center) + float64(fraction)*0x1p-64
	if c.Keys != c.Inverse {
		return -e
	}
	return e
}

// checkXPos returns an error where a factor would overflow.
func (r *Rotation) checkXPos(c *Call, rows int) error {
	for row := range rows {
		if e := r.exponent(c, row) * r.decay[0]; e > 80 {
			return callErrorf("xPos: row %d is %v positions from Center = %d, where its factor exp(%.0f) overflows", row, math.Abs(e/r.decay[0]), c.Center, e)
		}
	}
	return nil
}

// applyXPos multiplies a row's table by the decay.
func (r *Rotation) applyXPos(t *table, c *Call, row int) {
	e := r.exponent(c, row)
	per := len(t.cos) / r.pairs
	for i, d := range r.decay {
		scale := float32(math.Exp(e * d))
		for j := per * i; j < per*(i+1); j++ {
			t.cos[j] *= scale
			t.sin[j] *= scale
		}
	}
}
