package kernel

import "fmt"

// Format is how a matrix stores its elements: asm.Format, by the same numbers.
type Format uint8

// The formats, which package asm describes.
const (
	Float32 Format = iota
	BFloat16
	Int8
	Float16
)

// The formats of PackIn, which are no asm.Format: float32 in parts of bfloat16, two for
// products in three, three for products in six and one for products of the nearest alone.
const (
	BFloat16x3 Format = Float16 + 1 + iota
	BFloat16x6
	BFloat16x1
)

// precisions are the formats for PackIn of an asm.Precision, by its number.
var precisions = [...]Format{Float32, BFloat16x3, BFloat16x6, BFloat16x1}

// PrecisionFormat returns the format for PackIn of an asm.Precision of that number.
func PrecisionFormat(precision uint8) Format {
	if int(precision) >= len(precisions) {
		Panicf("asm: precision %d", precision)
	}
	return precisions[precision]
}

// PrecisionName is the name of the format of an asm.Precision, or its number where there is none.
func PrecisionName(precision uint8) string {
	if int(precision) >= len(precisions) {
		return fmt.Sprintf("precision %d", precision)
	}
	return precisions[precision].String()
}

// String returns float32, bfloat16, int8 or float16, or bfloat16x3, bfloat16x6 or bfloat16x1, and
// the number of another format.
func (f Format) String() string {
	names := [...]string{"float32", "bfloat16", "int8", "float16", "bfloat16x3", "bfloat16x6", "bfloat16x1"}
	if int(f) >= len(names) {
		return fmt.Sprintf("format %d", uint8(f))
	}
	return names[f]
}

func (f Format) bytes() int { return [...]int{4, 2, 1, 2, 4, 6, 2}[f] }

// parts is how many bfloat16 an element is split into, or 0.
func (f Format) parts() int { return [...]int{0, 0, 0, 0, 2, 3, 1}[f] }
