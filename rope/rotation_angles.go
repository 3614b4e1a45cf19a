package rope

import (
	"math"

	"github.com/subquad/subquad/internal/check"
)

// phases sets dst to sign times the phases of a row for a head.
func (r *Rotation) phases(dst []uint64, p *Positions, row, head int, sign uint64) {
	if r.axis == nil || r.cfg.Accuracy == Float32 || p.Fractional != nil {
		clear(dst)
		r.accumulate(dst, p, row, head, sign)
		return
	}
	t := r.turns[:len(dst)]
	if p.At != nil {
		at := p.At[row*r.axes:][:r.axes]
		for i, axis := range r.axis {
			dst[i] = sign * uint64(at[axis]) * t[i].part
		}
		return
	}
	whole, _, _ := p.place(row, 0, r.axes)
	at := sign * uint64(whole)
	for i := range t {
		dst[i] = at * t[i].part
	}
}

// accumulate adds sign times the phases of a row to dst.
func (r *Rotation) accumulate(dst []uint64, p *Positions, row, head int, sign uint64) {
	for term := range r.terms {
		t := r.turns[(head*r.terms+term)*r.pairs:][:len(dst)]
		f := r.freq[(head*r.terms+term)*r.pairs:][:len(dst)]
		for i := range dst {
			axis := term
			if r.axis != nil {
				axis = r.axis[i]
			}
			whole, fraction, at := p.place(row, axis, r.axes)
			if r.cfg.Accuracy == Float32 {
				dst[i] += sign * turnsOf(float64(float32(at)*float32(f[i]))).part
			} else {
				dst[i] += sign * t[i].phaseAt(whole, fraction)
			}
		}
	}
}

// place returns a row's coordinate on an axis, split and as the float64 nearest to it.
func (p *Positions) place(row, axis, axes int) (whole int64, fraction uint64, at float64) {
	switch {
	case p.At != nil:
		whole = p.At[row*axes+axis]
	case p.Fractional != nil:
		at = p.Fractional[row*axes+axis]
		whole, fraction, _ = split(at)
		return whole, fraction, at
	case p.still:
		whole = p.Start
	default:
		whole = p.Start + int64(row)
	}
	return whole, 0, float64(whole)
}

// CosSin64 sets cos and sin, RotaryDim/2 elements each, to the cosines and sines
// of one position in float64, times the attention factor. position has an
// element for each axis. For learned frequencies, use CosSin. Errors match ErrShape or
// ErrCall.
func (r *Rotation) CosSin64(cos, sin []float64, position ...float64) error {
	switch {
	case r.heads > 1:
		return callErrorf("CosSin64 with learned frequencies, want CosSin")
	case len(cos) != r.pairs || len(sin) != r.pairs:
		return check.Errorf(ErrShape, "rope: cos and sin have %d and %d elements, want RotaryDim/2 = %d", len(cos), len(sin), r.pairs)
	}
	p := Positions{Fractional: position}
	if err := p.checkRows("position", 1, r.axes); err != nil {
		return err
	}
	phase := make([]uint64, r.pairs)
	r.accumulate(phase, &p, 0, 0, 1)
	for i, v := range phase {
		s, c := math.Sincos(radians(v))
		cos[i], sin[i] = c*r.tableFactor(), s*r.tableFactor()
	}
	return nil
}
