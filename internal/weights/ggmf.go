package weights

import (
	"encoding/binary"
	"io"
)

// ggmfMagic begins files of rwkv.cpp: 0x67676d66, little-endian.
const ggmfMagic = "fmgg"

// ggmfTypes are the element types of such files, with the bytes of a block of elements.
var ggmfTypes = map[uint32]struct {
	name     string
	elements int64
	bytes    int64
}{
	0: {"F32", 1, 4}, 1: {"F16", 1, 2},
	2: {"Q4_0", 32, 18}, 3: {"Q4_1", 32, 20}, 7: {"Q5_0", 32, 22}, 8: {"Q5_1", 32, 24}, 9: {"Q8_0", 32, 34},
}

// readGGMF reads a file of rwkv.cpp, version 100 or 101: six numbers of four bytes, then one
// tensor after the other, each with its name and, the innermost first, its dimensions. Metadata
// says that it is such a file, under "format".
func readGGMF(r io.ReaderAt, size int64) (*File, error) {
	const head, most = 24, 256 // bytes of the beginning, and of a name
	numbers := func(at int64, n int) ([]uint32, error) {
		b := make([]byte, 4*n)
		if got, err := r.ReadAt(b, at); got < len(b) {
			return nil, short(err)
		}
		list := make([]uint32, n)
		for i := range list {
			list[i] = binary.LittleEndian.Uint32(b[4*i:])
		}
		return list, nil
	}
	if size < head {
		return nil, formatError("a file of rwkv.cpp of %d bytes", size)
	}
	begin, err := numbers(0, 6)
	if err != nil {
		return nil, err
	}
	if v := begin[1]; v != 100 && v != 101 {
		return nil, formatError("a file of rwkv.cpp of version %d, want 100 or 101", v)
	}
	f := &File{Metadata: map[string]string{"format": "rwkv.cpp"}, tensors: map[string]*Tensor{}}
	for at := int64(head); at < size; {
		h, err := numbers(at, 3)
		if err != nil {
			return nil, err
		}
		dims, length, kind := h[0], h[1], h[2]
		if dims < 1 || dims > 4 || length < 1 || length > most {
			return nil, formatError("a tensor of %d dimensions and a name of %d bytes, at byte %d", dims, length, at)
		}
		shape, err := numbers(at+12, int(dims))
		if err != nil {
			return nil, err
		}
		at += 12 + 4*int64(dims)
		name := make([]byte, length)
		if got, err := r.ReadAt(name, at); got < len(name) {
			return nil, short(err)
		}
		at += int64(length)
		t := &Tensor{Name: string(name), Shape: make([]int, dims)}
		elements := int64(1)
		for i, d := range shape {
			if d < 1 || int64(d) > size || elements > 32*size/int64(d) { // no type has more elements in a byte
				return nil, formatError("tensor %.200q of shape %v is larger than the file", name, shape)
			}
			elements *= int64(d)
			t.Shape[int(dims)-1-i] = int(d)
		}
		block, ok := ggmfTypes[kind]
		if !ok || elements%block.elements != 0 {
			return nil, formatError("tensor %.200q is of type %d", name, kind)
		}
		if t.Type = Type(block.name); block.elements > 1 {
			t.what = "quantized as " + block.name
		}
		n := elements / block.elements * block.bytes
		if n > size-at {
			return nil, formatError("tensor %.200q of %d bytes, of which the file has %d", name, n, size-at)
		}
		if f.tensors[t.Name] != nil {
			return nil, formatError("tensor %.200q is there twice", name)
		}
		t.data = io.NewSectionReader(r, at, n)
		f.tensors[t.Name] = t
		at += n
	}
	return f, nil
}
