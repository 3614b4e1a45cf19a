package weights

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// Type is an element type, by its name in the file.
type Type string

// sizes lists the types that can stand in a file, with the bytes of an element.
var sizes = map[Type]int{
	"F64": 8, "F32": 4, "F16": 2, "BF16": 2,
	"I64": 8, "I32": 4, "I16": 2, "I8": 1,
	"U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}

// decoder reads one element; integers come as float64 too, and exactly as int64.
type decoder[T any] func(b []byte) T

var toFloat64 = map[Type]decoder[float64]{
	"F64":  func(b []byte) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(b)) },
	"F32":  func(b []byte) float64 { return float64(math.Float32frombits(binary.LittleEndian.Uint32(b))) },
	"F16":  func(b []byte) float64 { return float64(float16(binary.LittleEndian.Uint16(b))) },
	"BF16": func(b []byte) float64 { return float64(bfloat16(binary.LittleEndian.Uint16(b))) },
}

var toFloat32 = map[Type]decoder[float32]{
	"F64":  func(b []byte) float32 { return float32(math.Float64frombits(binary.LittleEndian.Uint64(b))) },
	"F32":  func(b []byte) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(b)) },
	"F16":  func(b []byte) float32 { return float16(binary.LittleEndian.Uint16(b)) },
	"BF16": func(b []byte) float32 { return bfloat16(binary.LittleEndian.Uint16(b)) },
}

var toInt64 = map[Type]decoder[int64]{
	"I64":  func(b []byte) int64 { return int64(binary.LittleEndian.Uint64(b)) },
	"I32":  func(b []byte) int64 { return int64(int32(binary.LittleEndian.Uint32(b))) },
	"I16":  func(b []byte) int64 { return int64(int16(binary.LittleEndian.Uint16(b))) },
	"I8":   func(b []byte) int64 { return int64(int8(b[0])) },
	"U64":  func(b []byte) int64 { return int64(binary.LittleEndian.Uint64(b)) },
	"U32":  func(b []byte) int64 { return int64(binary.LittleEndian.Uint32(b)) },
	"U16":  func(b []byte) int64 { return int64(binary.LittleEndian.Uint16(b)) },
	"U8":   func(b []byte) int64 { return int64(b[0]) },
	"BOOL": func(b []byte) int64 { return int64(b[0]) },
}

func bfloat16(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }

func float16(h uint16) float32 {
	sign, exp, frac := uint32(h>>15)<<31, uint32(h>>10)&31, uint32(h)&1023
	switch {
	case exp == 31: // infinity and NaN
		return math.Float32frombits(sign | 0xff<<23 | frac<<13)
	case exp == 0: // zero and subnormal: frac * 2^-24
		return math.Float32frombits(sign | math.Float32bits(float32(frac)*0x1p-24))
	}
	return math.Float32frombits(sign | (exp+127-15)<<23 | frac<<13)
}

// Float32 reads a floating-point tensor.
func (t *Tensor) Float32() ([]float32, error) { return read(t, toFloat32) }

// Float64 reads a floating-point tensor.
func (t *Tensor) Float64() ([]float64, error) { return read(t, toFloat64) }

// Int64 reads a tensor of integers or booleans (0 and 1). Values of U64 beyond
// the largest int64 wrap.
func (t *Tensor) Int64() ([]int64, error) { return read(t, toInt64) }

func read[T any](t *Tensor, decoders map[Type]decoder[T]) ([]T, error) {
	decode, ok := decoders[t.Type]
	if !ok {
		var want T
		return nil, fmt.Errorf("weights: tensor %q is %s, which is not read as %T", t.Name, t.Type, want)
	}
	out := make([]T, t.Len())
	if t.strides != nil {
		return out, gather(t, out, decode)
	}
	size := sizes[t.Type]
	buf := make([]byte, min(64<<10, len(out)*size))
	for done := 0; done < len(out); {
		b := buf[:min(len(buf), (len(out)-done)*size)]
		if err := t.readAt(b, int64(done)*int64(size)); err != nil {
			return nil, err
		}
		for i := 0; i < len(b); i += size {
			out[done] = decode(b[i:])
			done++
		}
	}
	return out, nil
}

// readAt reads elements, little-endian.
func (t *Tensor) readAt(b []byte, at int64) error {
	if n, err := t.data.ReadAt(b, at); n < len(b) {
		return fmt.Errorf("weights: tensor %q: %w", t.Name, err)
	}
	if size := sizes[t.Type]; t.big {
		for ; len(b) > 0; b = b[size:] {
			slices.Reverse(b[:size])
		}
	}
	return nil
}

// gather reads a tensor that does not lie row after row: all from its first element
// to its last.
func gather[T any](t *Tensor, out []T, decode decoder[T]) error {
	b, size := make([]byte, t.data.Size()), sizes[t.Type]
	if err := t.readAt(b, 0); err != nil {
		return err
	}
	var walk func(at int, shape, strides []int)
	walk = func(at int, shape, strides []int) {
		if len(shape) == 0 {
			out[0] = decode(b[at*size:])
			out = out[1:]
			return
		}
		for i := range shape[0] {
			walk(at+i*strides[0], shape[1:], strides[1:])
		}
	}
	walk(0, t.Shape, t.strides)
	return nil
}
