package kernel

// Format is how a matrix stores its elements: asm.Format, by the same numbers.
type Format uint8

// The formats, which package asm describes.
const (
	Float32 Format = iota
	BFloat16
	Int8
	Float16
)

// String returns float32, bfloat16, int8 or float16.
func (f Format) String() string { return [...]string{"float32", "bfloat16", "int8", "float16"}[f] }

func (f Format) bytes() int { return [...]int{4, 2, 1, 2}[f] }
