//go:build !purego

package isa

import (
	"slices"
	"testing"

	"github.com/klauspost/cpuid/v2"
)

// TestUnitsOf takes one feature at a time from a processor that has them all: no unit is left
// whose kernels would use it.
func TestUnitsOf(t *testing.T) {
	without := func(missing ...cpuid.FeatureID) Unit {
		return unitsOf(func(list ...cpuid.FeatureID) bool {
			return !slices.ContainsFunc(list, func(f cpuid.FeatureID) bool { return slices.Contains(missing, f) })
		})
	}
	if u := without(); u != AMXBFloat16|AMXInt8|VNNI {
		t.Errorf("a processor with all features has %v", u)
	}
	for _, f := range []cpuid.FeatureID{cpuid.AVX512F, cpuid.AVX512BW, cpuid.AVX512DQ, cpuid.AVX512VL, cpuid.AVX512BF16, cpuid.AMXTILE, cpuid.AMXBF16} {
		if u := without(f); u&AMXBFloat16 != 0 {
			t.Errorf("without %v there is %v", f, u)
		}
	}
	if u := without(cpuid.AVX512VNNI); u&VNNI != 0 {
		t.Errorf("without VNNI there is %v", u)
	}
}
