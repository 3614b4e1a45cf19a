//go:build !purego

package isa

import "github.com/klauspost/cpuid/v2"

// detect returns the tiers above Generic, the best one last.
func detect() (tiers []Tier) {
	if cpuid.CPU.Supports(cpuid.AVX2, cpuid.FMA3, cpuid.F16C) {
		tiers = append(tiers, AVX2)
		if cpuid.CPU.Supports(cpuid.AVX512F, cpuid.AVX512BW, cpuid.AVX512DQ, cpuid.AVX512VL) {
			tiers = append(tiers, AVX512)
		}
	}
	return tiers
}

// detectUnits returns the units.
func detectUnits() Unit { return unitsOf(cpuid.CPU.Supports) }

// unitsOf returns the units of a processor that supports some features. A virtual machine may
// have any of them without the others, so that all that kernels use is asked for: those of
// AMXBFloat16 round to bfloat16 and transpose in AVX-512.
func unitsOf(supports func(...cpuid.FeatureID) bool) (u Unit) {
	vectors := supports(cpuid.AVX512F, cpuid.AVX512BW, cpuid.AVX512DQ, cpuid.AVX512VL)
	if vectors && supports(cpuid.AMXTILE, cpuid.AMXBF16, cpuid.AVX512BF16) {
		u |= AMXBFloat16
	}
	if supports(cpuid.AMXTILE, cpuid.AMXINT8) {
		u |= AMXInt8
	}
	if vectors && supports(cpuid.AVX512VNNI) {
		u |= VNNI
	}
	return u
}

// detectSecondCache returns the bytes of a core's second cache, or less than 1.
func detectSecondCache() int { return cpuid.CPU.Cache.L2 }
