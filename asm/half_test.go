package asm

import (
	"math"
	"testing"
)

// TestHalves rounds every float16, what lies between it and the next, and half
// way between.
func TestHalves(t *testing.T) {
	value := func(bits uint16) float64 { // by definition
		exp, frac := int(bits>>10), float64(bits&0x3ff)
		if exp == 0 {
			return math.Ldexp(frac, -24)
		}
		return math.Ldexp(1024+frac, exp-25)
	}
	for bits := uint16(0); bits < 0x7c00; bits++ {
		x := float32(value(bits))
		for sign := range uint16(2) {
			v, want := x*float32(1-2*int(sign)), bits|sign<<15
			if got := Float16Of(want); math.Float32bits(got) != math.Float32bits(v)|uint32(sign)<<31 {
				t.Fatalf("%#04x stands for %v, want %v", want, got, v)
			}
			if got := Float16Bits(Float16Of(want)); got != want {
				t.Fatalf("%v is %#04x, want %#04x", v, got, want)
			}
		}
		next := value(bits + 1) // of the largest number, 2^16
		half := float32((value(bits) + next) / 2)
		even := bits + bits&1
		for _, c := range []struct {
			x    float32
			want uint16
		}{{math.Nextafter32(half, 0), bits}, {half, even}, {math.Nextafter32(half, inf), bits + 1}} {
			if got := Float16Bits(c.x); got != c.want {
				t.Fatalf("%v is %#04x, want %#04x", c.x, got, c.want)
			}
		}
	}
	for _, c := range []struct {
		x    float32
		want uint16
	}{{inf, 0x7c00}, {-inf, 0xfc00}, {1e30, 0x7c00}, {-1e30, 0xfc00}, {1e-30, 0}} {
		if got := Float16Bits(c.x); got != c.want {
			t.Errorf("%v is %#04x, want %#04x", c.x, got, c.want)
		}
	}
	if got := Float16Of(Float16Bits(nan)); got == got {
		t.Errorf("NaN becomes %v", got)
	}
	if got := Float16Of(0xfc00); got != -inf {
		t.Errorf("-Inf becomes %v", got)
	}
}

func TestQuantizeInt8(t *testing.T) {
	x, q := random(1, 100), make([]int8, 100)
	scale := QuantizeInt8(q, x)
	for i, v := range x {
		if d := math.Abs(float64(v) - float64(scale)*float64(q[i])); d > float64(scale)*0.5001 {
			t.Errorf("%v comes back as %v", v, scale*float32(q[i]))
		}
	}
	if s := QuantizeInt8(q[:2], []float32{0, 0}); s != 0 || q[0] != 0 {
		t.Errorf("zeros: scale %v, %v", s, q[:2])
	}
	for _, bad := range []float32{nan, inf} {
		if s := QuantizeInt8(q[:2], []float32{0, bad}); s-s == 0 || s*float32(q[0]) == 0 {
			t.Errorf("%v: scale %v, %v", bad, s, q[:2])
		}
	}
}
