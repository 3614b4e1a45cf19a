package rope

import (
	"math"
	"math/bits"
)

// turns is a frequency in turns per position as a fixed-point number, in two's
// complement: whole turns and 2^-64 turns. A phase, a uint64 in 2^-64 turns, is a
// product that wraps around as angles do, so it is as exact at position 10^8 as
// at 1: its error is 2^-65 turns times the position.
type turns struct{ whole, part uint64 }

// The first 128 bits of 1 / (2 pi), in units of 2^-130.
const invTwoPiHi, invTwoPiLo = 0xa2f9836e4e441529, 0xfc2757d1f534ddc0

// maxFrequency is what a frequency's magnitude must be below, in radians per position.
const maxFrequency = 1 << 53

// turnsOf converts radians per position, below maxFrequency.
func turnsOf(radians float64) turns {
	fraction, exp := math.Frexp(math.Abs(radians))
	m := uint64(fraction * (1 << 53)) // radians = m 2^(exp-53)
	// p = m / (2 pi) in units of 2^(exp-53-130), 181 bits at the most.
	p1, p0 := bits.Mul64(m, invTwoPiLo)
	p2, mid := bits.Mul64(m, invTwoPiHi)
	p1, carry := bits.Add64(p1, mid, 0)
	p2 += carry
	// To units of 2^-64: a shift by 53+130-64-exp >= 66, rounding to the nearest.
	shift := uint(119 - exp)
	p0, carry = bits.Add64(p0, word(0, shift-1), 0)
	p1, carry = bits.Add64(p1, word(1, shift-1), carry)
	p2 += word(2, shift-1) + carry
	at := func(shift uint) uint64 { // 64 bits of p from bit shift on
		return p0>>shift | p1<<(64-shift) | p1>>(shift-64) | p2<<(128-shift) | p2>>(shift-128)
	}
	t := turns{whole: at(shift + 64), part: at(shift)}
	if radians < 0 {
		var borrow uint64
		t.part, borrow = bits.Sub64(0, t.part, 0)
		t.whole, _ = bits.Sub64(0, t.whole, borrow)
	}
	return t
}

// word returns word i of the number with bit n set.
func word(i, n uint) uint64 {
	if n/64 == i {
		return 1 << (n % 64)
	}
	return 0
}

// phaseAt is that of a position with a fraction in 2^-64.
func (t turns) phaseAt(position int64, fraction uint64) uint64 {
	high, _ := bits.Mul64(t.part, fraction)
	return uint64(position)*t.part + t.whole*fraction + high
}

// split returns floor(x) and the rest in 2^-64, or false for an x beyond int64.
func split(x float64) (whole int64, fraction uint64, ok bool) {
	floor := math.Floor(x)
	if !(floor >= -(1<<63) && floor < 1<<63) {
		return 0, 0, false
	}
	whole = int64(floor)
	rest := x - floor
	if rest >= 1 { // a negative x closer to 0 than half a unit in the last place of 1
		return whole + 1, 0, true
	}
	return whole, uint64(rest * (1 << 64)), true
}

// radians returns a phase as an angle in [-pi, pi).
func radians(phase uint64) float64 { return float64(int64(phase)) * (math.Pi / (1 << 63)) }

// high rounds a phase to 2^-32 turns.
func high(phase uint64) uint32 { return uint32((phase + 1<<31) >> 32) }
