package weights

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// file makes a safetensors file of a header and a body.
func file(header string, body []byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), body...)
}

func parse(b []byte) (*File, error) { return Read(bytes.NewReader(b), int64(len(b))) }

func TestRead(t *testing.T) {
	body := binary.LittleEndian.AppendUint32(nil, math.Float32bits(1.5))
	body = binary.LittleEndian.AppendUint32(body, math.Float32bits(-2))
	body = binary.LittleEndian.AppendUint16(body, 0x3e00) // 1.5 in F16
	body = binary.LittleEndian.AppendUint16(body, 0x0001) // 2^-24
	body = binary.LittleEndian.AppendUint16(body, 0x3fc0) // 1.5 in BF16
	body = append(body, 0xff)
	f, err := parse(file(`{"__metadata__":{"k":"v"},
		"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},
		"h":{"dtype":"F16","shape":[2],"data_offsets":[8,12]},
		"b":{"dtype":"BF16","shape":[],"data_offsets":[12,14]},
		"i":{"dtype":"I8","shape":[1],"data_offsets":[14,15]},
		"e":{"dtype":"F64","shape":[3,0],"data_offsets":[15,15]}}   `, body))
	if err != nil {
		t.Fatal(err)
	}
	if f.Metadata["k"] != "v" || !slices.Equal(f.Names(), []string{"a", "b", "e", "h", "i"}) {
		t.Errorf("metadata %v, names %v", f.Metadata, f.Names())
	}
	for name, want := range map[string][]float32{"a": {1.5, -2}, "h": {1.5, 0x1p-24}, "b": {1.5}, "e": {}} {
		got, err := f.Tensor(name).Float32()
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v, want %v", name, got, err, want)
		}
		if got, err := f.Tensor(name).Float64(); err != nil || len(got) != len(want) || len(got) > 0 && float32(got[0]) != want[0] {
			t.Errorf("%s as float64: %v, %v", name, got, err)
		}
	}
	if got, err := f.Tensor("i").Int64(); err != nil || !slices.Equal(got, []int64{-1}) {
		t.Errorf("i: %v, %v", got, err)
	}
	if _, err := f.Tensor("i").Float32(); err == nil {
		t.Error("an I8 tensor was read as float32")
	}
	if f.Tensor("none") != nil {
		t.Error("a tensor that is not there")
	}
}

func TestHostile(t *testing.T) {
	for name, b := range map[string][]byte{
		"empty":              nil,
		"short":              {1, 2, 3},
		"header too long":    file(`{}`, nil)[:9],
		"absurd header":      append(bytes.Repeat([]byte{0xff}, 8), `{}`...),
		"not JSON":           file(`{"a":`, nil),
		"not an object":      file(`[1]`, nil),
		"entry not object":   file(`{"a":3}`, nil),
		"twice":              file(`{"a":{"dtype":"I8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"I8","shape":[0],"data_offsets":[0,0]}}`, nil),
		"unknown type":       file(`{"a":{"dtype":"F7","shape":[1],"data_offsets":[0,1]}}`, []byte{0}),
		"outside":            file(`{"a":{"dtype":"I8","shape":[9],"data_offsets":[0,9]}}`, []byte{0}),
		"negative offset":    file(`{"a":{"dtype":"I8","shape":[2],"data_offsets":[-1,1]}}`, []byte{0}),
		"backwards":          file(`{"a":{"dtype":"I8","shape":[],"data_offsets":[1,0]}}`, []byte{0}),
		"one offset":         file(`{"a":{"dtype":"I8","shape":[],"data_offsets":[0]}}`, []byte{0}),
		"wrong size":         file(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}`, make([]byte, 4)),
		"odd size":           file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,5]}}`, make([]byte, 5)),
		"negative dimension": file(`{"a":{"dtype":"I8","shape":[-1,-1],"data_offsets":[0,1]}}`, []byte{0}),
		"overflow":           file(`{"a":{"dtype":"I8","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`, nil),
		"overflow to one":    file(`{"a":{"dtype":"I8","shape":[3,6148914691236517206],"data_offsets":[0,2]}}`, []byte{0, 0}),
		"huge times zero":    file(`{"a":{"dtype":"I8","shape":[0,4611686018427387904],"data_offsets":[0,1]}}`, []byte{0}),
		"overlap":            file(`{"a":{"dtype":"I8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"I8","shape":[2],"data_offsets":[1,3]}}`, make([]byte, 3)),
		"hole":               file(`{"a":{"dtype":"I8","shape":[1],"data_offsets":[1,2]}}`, make([]byte, 2)),
		"left over":          file(`{"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]}}`, make([]byte, 2)),
		"eight zeros":        make([]byte, 8),
		"after the object":   file(`{}x`, nil),
		"two objects":        file(`{}{}`, nil),
		"zeros after it":     file("{}\x00\x00", nil),
		"a key twice":        file(`{"a":{"dtype":"I8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}`, nil),
		"another key twice":  file(`{"a":{"x":1,"x":2,"dtype":"U8","shape":[0],"data_offsets":[0,0]}}`, nil),
		"DTYPE":              file(`{"a":{"DTYPE":"I8","shape":[0],"data_offsets":[0,0]}}`, nil),
		"Shape":              file(`{"a":{"dtype":"I8","Shape":[0],"data_offsets":[0,0]}}`, nil),
		"no offsets":         file(`{"a":{"dtype":"I8","shape":[0]}}`, nil),
		"half a byte":        file(`{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}}`, make([]byte, 2)),
		"metadata not text":  file(`{"__metadata__":{"k":1}}`, nil),
	} {
		if f, err := parse(b); !errors.Is(err, ErrFormat) || strings.HasSuffix(err.Error(), "EOF") && name != "not JSON" {
			t.Errorf("%s: %v, error %v", name, f, err)
		}
	}
}

func TestOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.safetensors")
	if err := os.WriteFile(path, file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, []byte{200}), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := f.Tensor("a").Int64(); err != nil || got[0] != 200 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := Open(path + ".none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	if err := os.WriteFile(path, []byte("hello, this is text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v", err)
	}
}

// readTypes are those whose tensors are read, as floating-point numbers or integers.
var readTypes = map[Type]bool{
	"F64": true, "F32": true, "F16": true, "BF16": true, "F8_E4M3": true, "F8_E5M2": true, "BOOL": true,
	"I64": true, "I32": true, "I16": true, "I8": true, "U64": true, "U32": true, "U16": true, "U8": true,
}

// took returns how many bytes f takes from the heap, garbage included.
func took(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// FuzzRead expects an error or a file whose tensors can be read, within memory
// that the file's own size bounds.
func FuzzRead(f *testing.F) {
	f.Add(file(`{"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]}}`, make([]byte, 8)))
	f.Add(file(`{"__metadata__":{"k":"v"},"b":{"dtype":"BF16","shape":[],"data_offsets":[0,2]},"e":{"dtype":"F64","shape":[0],"data_offsets":[2,2]}}`, make([]byte, 2)))
	f.Add(file(`{"a":{"dtype":"I8","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var file *File
		var err error
		if n := took(func() { file, err = parse(b) }); n > 1<<20+uint64(256*len(b)) {
			t.Fatalf("%d bytes to read a file of %d", n, len(b))
		}
		if err != nil {
			return
		}
		for _, name := range file.Names() {
			tensor := file.Tensor(name)
			if n := tensor.Len(); n < 0 || n*bits[tensor.Type] > 8*len(b) {
				t.Fatalf("%s: %d elements in a file of %d bytes", name, n, len(b))
			}
			_, floatErr := tensor.Float32()
			_, intErr := tensor.Int64()
			if floatErr != nil && intErr != nil && readTypes[tensor.Type] {
				t.Fatalf("%s of %s cannot be read: %v; %v", name, tensor.Type, floatErr, intErr)
			}
		}
	})
}
