package weights

import (
	"math"

	"github.com/subquad/subquad/internal/kernel/scalar"
)

// Type is an element type, by its name in the file.
type Type string

// bits lists the types that can stand in a file, with the bits of an element.
var bits = map[Type]int{
	"F64": 64, "F32": 32, "F16": 16, "BF16": 16,
	"F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
	"F6_E2M3": 6, "F6_E3M2": 6, "F4": 4, "C64": 64, "C128": 128,
	"I64": 64, "I32": 32, "I16": 16, "I8": 8,
	"U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8,
}

// sizeOf returns the bytes of an element, 0 where the type is not known or its elements
// are not whole bytes.
func sizeOf(t Type) int {
	if b := bits[t]; b%8 == 0 {
		return b / 8
	}
	return 0
}

// float8E5M2 is the upper half of a float16.
func float8E5M2(b byte) float32 { return scalar.Float16Of(uint16(b) << 8) }

// float8E4M3 has no infinity, and NaN where all bits but the sign are set.
func float8E4M3(b byte) float32 {
	sign, exp, frac := uint32(b>>7)<<31, uint32(b>>3)&15, uint32(b)&7
	switch {
	case b&0x7f == 0x7f:
		return math.Float32frombits(sign | 0x7fc00000)
	case exp == 0: // frac * 2^-9
		return math.Float32frombits(sign | math.Float32bits(float32(frac)*0x1p-9))
	}
	return math.Float32frombits(sign | (exp+127-7)<<23 | frac<<20)
}
