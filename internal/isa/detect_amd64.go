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
func detectUnits() (u Unit) {
	if cpuid.CPU.Supports(cpuid.AMXTILE, cpuid.AMXBF16) {
		u |= AMXBFloat16
	}
	if cpuid.CPU.Supports(cpuid.AMXTILE, cpuid.AMXINT8) {
		u |= AMXInt8
	}
	if cpuid.CPU.Supports(cpuid.AVX512F, cpuid.AVX512BW, cpuid.AVX512DQ, cpuid.AVX512VL, cpuid.AVX512VNNI) {
		u |= VNNI
	}
	return u
}

// detectSecondCache returns the bytes of a core's second cache, or less than 1.
func detectSecondCache() int { return cpuid.CPU.Cache.L2 }
