package isa

import (
	"slices"
	"strings"
)

// Unit is hardware for products of narrow numbers beside the vector instructions that
// every machine of a tier has: matrix units, which multiply whole tiles, and instructions
// that sum products of int8. A machine may have several, or none.
//
// Units are no rungs of the ladder of tiers, for three reasons. A unit does one thing,
// products, so that a tier is needed beside it in any case. It has no float32: it
// rounds its operands to bfloat16, float16 or int8 first, so that it may be used only
// where the caller asked for that precision. And a kernel must ask the operating
// system for the unit's registers before it uses them.
//
// A kernel on a matrix unit is chosen by Granted, after the caller's precision, and by the
// tier for everything else; AMXInt8 has none yet. VNNI changes no bit: sums of integers
// are the same without.
type Unit uint8

// The units.
const (
	AMXBFloat16 Unit = 1 << iota // amd64, tiles of bfloat16 (AMX-TILE, AMX-BF16)
	AMXInt8                      // amd64, tiles of int8 (AMX-TILE, AMX-INT8)
	VNNI                         // amd64, sums of four products of int8 in vectors of AVX-512 (AVX512_VNNI)
)

var unitNames = [...]string{"amx-bf16", "amx-int8", "vnni"}

// String returns the names of a set of units, joined by +, or none.
func (u Unit) String() string {
	var list []string
	for i, name := range unitNames {
		if u&(1<<i) != 0 {
			list = append(list, name)
		}
	}
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, "+")
}

// Has tells whether the processor has a unit, and the tier in use is the highest this
// machine has: SUBQUAD_ISA, which lowers the tier, takes the units away.
func Has(u Unit) bool {
	return active == slices.Max(available) && units&u == u
}

// Without takes units away, for tests: nothing else may be running. It returns what gives them back.
func Without(u Unit) (restore func()) {
	old := units
	units &^= u
	return func() { units = old }
}

// units are those of the processor.
var units = detectUnits()
