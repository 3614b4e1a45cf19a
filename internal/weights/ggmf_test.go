package weights

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
)

// ggmf writes a file of rwkv.cpp of some tensors.
func ggmf(tensors ...[]byte) []byte {
	var b []byte
	for _, n := range []uint32{0x67676d66, 101, 3, 2, 1, 0} {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	return slices.Concat(append([][]byte{b}, tensors...)...)
}

func ggmfTensor(name string, kind uint32, data []byte, shape ...uint32) (b []byte) {
	for _, n := range append([]uint32{uint32(len(shape)), uint32(len(name)), kind}, shape...) {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	return slices.Concat(b, []byte(name), data)
}

func TestGGMF(t *testing.T) {
	var floats []byte
	for i := range 6 {
		floats = binary.LittleEndian.AppendUint32(floats, math.Float32bits(float32(i)))
	}
	file := ggmf(
		ggmfTensor("emb.weight", 0, floats, 2, 3),
		ggmfTensor("half", 1, []byte{0, 0x3c, 0, 0xc0}, 2),
		ggmfTensor("small", 9, make([]byte, 68), 64),
	)
	f, err := Read(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	if f.Metadata["format"] != "rwkv.cpp" || len(f.Names()) != 3 {
		t.Errorf("%v, %v", f.Metadata, f.Names())
	}
	if x := f.Tensor("emb.weight"); !slices.Equal(x.Shape, []int{3, 2}) {
		t.Errorf("shape %v", x.Shape)
	}
	if x, err := f.Tensor("emb.weight").Float32(); err != nil || !slices.Equal(x, []float32{0, 1, 2, 3, 4, 5}) {
		t.Errorf("%v, %v", x, err)
	}
	if x, err := f.Tensor("half").Float32(); err != nil || !slices.Equal(x, []float32{1, -2}) {
		t.Errorf("%v, %v", x, err)
	}
	if _, err := f.Tensor("small").Float32(); err == nil || !strings.Contains(err.Error(), "quantized as Q8_0") {
		t.Errorf("error %v of a quantized tensor", err)
	}
	if x, err := f.Tensor("emb.weight").Part(1).Float32(); err != nil || !slices.Equal(x, []float32{2, 3}) {
		t.Errorf("part %v, %v", x, err)
	}
	for n := range file {
		whole := n == 24 || n == 24+20+10+24 || n == 24+20+10+24+16+4+4
		if _, err := Read(bytes.NewReader(file[:n]), int64(n)); (err == nil) != whole {
			t.Errorf("%d bytes: error %v", n, err)
		}
	}
	for what, tensor := range map[string][]byte{
		"no dimensions": ggmfTensor("x", 0, floats), "too many": ggmfTensor("x", 0, floats, 1, 1, 1, 1, 1), "no name": ggmfTensor("", 0, floats, 2),
		"a long name": ggmfTensor(strings.Repeat("x", 300), 0, floats, 2), "a type": ggmfTensor("x", 5, floats, 2), "an empty one": ggmfTensor("x", 0, nil, 0),
		"a large one": ggmfTensor("x", 0, floats, 1<<31, 1<<31, 1<<31), "part of a block": ggmfTensor("x", 9, floats, 33), "twice": slices.Concat(ggmfTensor("x", 0, floats, 6), ggmfTensor("x", 0, floats, 6)),
	} {
		file := ggmf(tensor)
		if _, err := Read(bytes.NewReader(file), int64(len(file))); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: error %v", what, err)
		}
	}
	file[4] = 99
	if _, err := Read(bytes.NewReader(file), int64(len(file))); !errors.Is(err, ErrFormat) {
		t.Errorf("error %v of another version", err)
	}
}
