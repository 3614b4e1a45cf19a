package weights

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"unsafe"

	"github.com/subquad/subquad/internal/kernel"
)

// Float32 reads a floating-point tensor: F64 (rounded), F32, F16, BF16, F8_E4M3 or
// F8_E5M2.
func (t *Tensor) Float32() ([]float32, error) { return readAs(t, decodeFloat32) }

// Float64 reads a floating-point tensor.
func (t *Tensor) Float64() ([]float64, error) { return readAs(t, decodeFloat64) }

// Int64 reads a tensor of integers or booleans (0 and 1). Values of U64 beyond
// the largest int64 wrap.
func (t *Tensor) Int64() ([]int64, error) { return readAs(t, decodeInt64) }

// Bytes reads a tensor of one byte to an element as it stands: U8, I8, or one of the types
// of eight bits. Packed formats keep their blocks so (MXFP4).
func (t *Tensor) Bytes() ([]byte, error) { return readAs(t, decodeBytes) }

// chunk is how many bytes are read at once: they stay in the second cache until they
// are decoded.
const chunk = 256 << 10

// readAs reads all elements. decode sets dst to the little-endian elements of b, and
// tells whether the type is one that it reads.
func readAs[T any](t *Tensor, decode func(dst []T, b []byte, kind Type) bool) ([]T, error) {
	if err := t.readable(); err != nil {
		return nil, err
	}
	if !decode(nil, nil, t.Type) {
		var to T
		return nil, fmt.Errorf("tensor %.200q is %.100s, which is not read as %T", t.Name, t.Type, to)
	}
	out := make([]T, t.Len())
	if t.strides != nil {
		return out, gather(t, out, decode)
	}
	return out, readRow(t, out, decode)
}

// readRow reads len(out) elements that follow each other.
func readRow[T any](t *Tensor, out []T, decode func(dst []T, b []byte, kind Type) bool) error {
	size := sizeOf(t.Type)
	if own, ok := any(out).([]float32); ok && t.Type == "F32" && len(out) > 0 && littleEndian {
		return t.readAt(unsafe.Slice((*byte)(unsafe.Pointer(&own[0])), 4*len(own)), 0)
	}
	buf := make([]byte, min(chunk, len(out)*size))
	for done := 0; done < len(out); {
		b := buf[:min(len(buf), (len(out)-done)*size)]
		if err := t.readAt(b, int64(done)*int64(size)); err != nil {
			return err
		}
		n := len(b) / size
		decode(out[done:done+n], b, t.Type)
		done += n
	}
	return nil
}

// gather reads a tensor that does not lie row after row: all from its first element
// to its last, of which it takes those that it has.
func gather[T any](t *Tensor, out []T, decode func(dst []T, b []byte, kind Type) bool) error {
	all := make([]T, t.data.Size()/int64(sizeOf(t.Type)))
	if err := readRow(t, all, decode); err != nil {
		return err
	}
	var walk func(at int, shape, strides []int)
	walk = func(at int, shape, strides []int) {
		switch {
		case len(shape) == 0:
			out[0] = all[at]
			out = out[1:]
		case len(shape) == 1:
			for i := range shape[0] {
				out[i] = all[at+i*strides[0]]
			}
			out = out[shape[0]:]
		default:
			for i := range shape[0] {
				walk(at+i*strides[0], shape[1:], strides[1:])
			}
		}
	}
	walk(0, t.Shape, t.strides)
	return nil
}

// readAt reads elements, little-endian.
func (t *Tensor) readAt(b []byte, at int64) error {
	if n, err := t.data.ReadAt(b, at); n < len(b) {
		return fmt.Errorf("tensor %.200q: %w", t.Name, short(err))
	}
	if size := sizeOf(t.Type); t.big {
		for ; len(b) > 0; b = b[size:] {
			slices.Reverse(b[:size])
		}
	}
	return nil
}

var little = binary.LittleEndian

// littleEndian tells whether a number's bytes in memory are those in a file.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

func decodeFloat32(dst []float32, b []byte, kind Type) bool {
	switch kind {
	case "F64":
		for i := range dst {
			dst[i] = float32(math.Float64frombits(little.Uint64(b[8*i:])))
		}
	case "F32":
		for i := range dst {
			dst[i] = math.Float32frombits(little.Uint32(b[4*i:]))
		}
	case "BF16":
		kernel.WidenBFloat16(dst, b[:2*len(dst)])
	case "F16":
		kernel.WidenFloat16(dst, b[:2*len(dst)])
	case "F8_E4M3":
		for i := range dst {
			dst[i] = float8E4M3(b[i])
		}
	case "F8_E5M2":
		for i := range dst {
			dst[i] = float8E5M2(b[i])
		}
	default:
		return false
	}
	return true
}

func decodeFloat64(dst []float64, b []byte, kind Type) bool {
	if kind == "F64" {
		for i := range dst {
			dst[i] = math.Float64frombits(little.Uint64(b[8*i:]))
		}
		return true
	}
	var narrow [512]float32
	size := sizeOf(kind)
	for len(dst) > 0 {
		n := min(len(dst), len(narrow))
		if !decodeFloat32(narrow[:n], b, kind) {
			return false
		}
		for i, v := range narrow[:n] {
			dst[i] = float64(v)
		}
		dst, b = dst[n:], b[n*size:]
	}
	return decodeFloat32(nil, nil, kind)
}

func decodeInt64(dst []int64, b []byte, kind Type) bool {
	switch kind {
	case "I64", "U64":
		for i := range dst {
			dst[i] = int64(little.Uint64(b[8*i:]))
		}
	case "I32":
		for i := range dst {
			dst[i] = int64(int32(little.Uint32(b[4*i:])))
		}
	case "U32":
		for i := range dst {
			dst[i] = int64(little.Uint32(b[4*i:]))
		}
	case "I16":
		for i := range dst {
			dst[i] = int64(int16(little.Uint16(b[2*i:])))
		}
	case "U16":
		for i := range dst {
			dst[i] = int64(little.Uint16(b[2*i:]))
		}
	case "I8":
		for i := range dst {
			dst[i] = int64(int8(b[i]))
		}
	case "U8", "BOOL":
		for i := range dst {
			dst[i] = int64(b[i])
		}
	default:
		return false
	}
	return true
}

func decodeBytes(dst, b []byte, kind Type) bool {
	copy(dst, b)
	return sizeOf(kind) == 1
}
