package isa

import (
	"sync"
	"sync/atomic"
	"testing"
)

func TestUnit(t *testing.T) {
	for u, want := range map[Unit]string{0: "none", AMXBFloat16: "amx-bf16", AMXInt8: "amx-int8", AMXBFloat16 | AMXInt8: "amx-bf16+amx-int8", VNNI: "vnni"} {
		if got := u.String(); got != want {
			t.Errorf("units %b are %q, want %q", uint8(u), got, want)
		}
	}
	defer func(old Unit) { units = old }(units)
	units = AMXInt8
	best := available[len(available)-1]
	restore := Use(best)
	if !Has(AMXInt8) || Has(AMXBFloat16) || Has(AMXInt8|AMXBFloat16) || !Has(0) {
		t.Error("of the units only amx-int8 is there, and Has says otherwise")
	}
	restore()
	for _, tier := range available[:len(available)-1] {
		restore := Use(tier)
		if Has(AMXInt8) {
			t.Errorf("a unit is there under %v, which is not the highest tier", tier)
		}
		restore()
	}
}

// TestLadder checks what dispatch relies on: a tier is above all those of its port
// that it can stand in for.
func TestLadder(t *testing.T) {
	for i, tier := range available {
		if i > 0 && tier <= available[i-1] || i == 0 && tier != Generic {
			t.Errorf("the tiers %v do not ascend from generic", available)
		}
	}
	if !(Generic < NEON && Generic < AVX2 && AVX2 < AVX512) {
		t.Error("a ladder is out of order")
	}
}

// TestGranted checks that no registers are handed out for a unit that is not there.
func TestGranted(t *testing.T) {
	if Granted(AMXBFloat16) && !Has(AMXBFloat16) {
		t.Error("a unit is granted that the processor does not have")
	}
	for _, tier := range available[:len(available)-1] {
		restore := Use(tier)
		if Granted(AMXBFloat16) {
			t.Errorf("a unit is granted under %v, which is not the highest tier", tier)
		}
		restore()
	}
}

// TestRefused: where the system refuses the registers there is no unit, and it is asked once
// by however many goroutines.
func TestRefused(t *testing.T) {
	defer func(old func() bool, u Unit) { tilesGranted, units = old, u }(tilesGranted, units)
	defer Use(available[len(available)-1])()
	units = AMXBFloat16
	for _, answer := range []bool{false, true} {
		var asked atomic.Int32
		tilesGranted = sync.OnceValue(func() bool { asked.Add(1); return answer })
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if Granted(AMXBFloat16) != answer {
					t.Errorf("granted is not %v, as the system says", answer)
				}
			})
		}
		wg.Wait()
		if asked.Load() != 1 {
			t.Errorf("the system is asked %d times", asked.Load())
		}
	}
}
