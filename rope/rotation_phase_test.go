package rope

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// bigTurns is radians / (2 pi) in units of 2^-64, rounded down to an integer.
func bigTurns(radians *big.Float) *big.Int {
	pi, _, err := big.ParseFloat("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534211706798", 10, 320, big.ToNearestEven)
	if err != nil {
		panic(err)
	}
	v := new(big.Float).SetPrec(320).Quo(radians, pi.Mul(pi, big.NewFloat(2)))
	v.SetMantExp(v, 64)
	i, _ := v.Int(nil)
	if v.Sign() < 0 {
		i.Sub(i, big.NewInt(1))
	}
	return i
}

// TestTurns compares frequencies and phases with exact arithmetic.
func TestTurns(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	list := []float64{0, 1, -1, 1e-4, 0.5, math.Pi, 2 * math.Pi, 1e-300, 5e-324, 402.1, 1e15, -1e15}
	for range 1000 {
		list = append(list, math.Exp(r.Float64()*60-40), -math.Exp(r.Float64()*60-40))
	}
	for _, f := range list {
		got := turnsOf(f)
		want := bigTurns(big.NewFloat(f).SetPrec(320))
		number := new(big.Int).SetUint64(got.whole)
		number.Lsh(number, 64).Add(number, new(big.Int).SetUint64(got.part))
		if got.whole >= 1<<63 {
			number.Sub(number, new(big.Int).Lsh(big.NewInt(1), 128))
		}
		if d := number.Sub(number, want); d.CmpAbs(big.NewInt(1)) > 0 {
			t.Fatalf("%v: %v, off by %v", f, got, d)
		}
		for _, at := range []float64{0, 1, -1, 1e8, -1e8, 0.5, 1234.5678, -0.25, -1e-30, 1e8 + 1.0/3} {
			whole, fraction, ok := split(at)
			if !ok {
				t.Fatalf("%v cannot be split", at)
			}
			phase := got.phaseAt(whole, fraction)
			if at == math.Trunc(at) && phase != uint64(int64(at))*got.part {
				t.Fatalf("%v at %v: other phases for the integer and the float", f, at)
			}
			product := new(big.Float).SetPrec(320).Mul(big.NewFloat(f).SetPrec(320), big.NewFloat(at).SetPrec(320))
			exact := bigTurns(product)
			exact.And(exact, new(big.Int).SetUint64(math.MaxUint64))
			// 2^-64 turns for the frequency's rounding, times the position, and some for the fraction's.
			if d := int64(phase - exact.Uint64()); math.Abs(float64(d)) > math.Abs(at)+math.Abs(f)/3+4 {
				t.Fatalf("%v at %v: phase %d, off by %d", f, at, phase, d)
			}
		}
	}
	for _, at := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), 1e19, -1e19} {
		if _, _, ok := split(at); ok {
			t.Errorf("%v was split", at)
		}
	}
}
