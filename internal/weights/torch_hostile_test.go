package weights_test

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/subquad/subquad/internal/weights"
	"github.com/subquad/subquad/internal/weights/weightstest"
)

// TestHostileTorch expects errors, and no memory for elements that are not there.
func TestHostileTorch(t *testing.T) {
	const large = 1 << 40
	tensor := func(count, offset int64, shape, strides []int64) weightstest.Pickle {
		return weightstest.Pickle("}").Text("a").Tensor("FloatStorage", "0", count, offset, shape, strides).Op("s")
	}
	for want, p := range map[string]weightstest.Pickle{
		"offset 13 leaves a storage of 12 elements":            tensor(12, 13, nil, nil),
		"offset 12 leaves a storage of 12 elements":            tensor(12, 12, []int64{1}, []int64{1}),
		"offset -1 leaves a storage":                           tensor(12, -1, []int64{3}, []int64{1}),
		"offset -9223372036854775808 leaves":                   tensor(12, math.MinInt64, nil, nil),
		"offset 9223372036854775807 leaves":                    tensor(12, math.MaxInt64, []int64{2}, []int64{1}),
		"offset 1 leaves a storage":                            tensor(12, 1, []int64{3, 4}, []int64{4, 1}),
		"strides [-1]: offset 3 leaves":                        tensor(12, 3, []int64{3}, []int64{-1}),
		"strides [9223372036854775807]":                        tensor(12, 0, []int64{2}, []int64{math.MaxInt64}),
		"shape [-1]":                                           tensor(12, 0, []int64{-1}, []int64{1}),
		"shape [-1 0]":                                         tensor(12, 0, []int64{-1, 0}, []int64{1, 1}),
		"shape [1099511627776] and strides [0]: more than the": tensor(12, 0, []int64{large}, []int64{0}),
		"shape [4294967296 4294967296 4294967296]":             tensor(12, 0, []int64{1 << 32, 1 << 32, 1 << 32}, []int64{0, 0, 0}),
		"shape [1099511627776] and strides [1]: more":          tensor(large, 0, []int64{large}, []int64{1}),
		"a storage of 13 F32 has 48 bytes":                     tensor(13, 0, []int64{13}, []int64{1}),
		"a storage of 11 F32 has 48 bytes":                     tensor(11, 0, []int64{1}, []int64{1}),
		"a storage of 4611686018427387916 F32 has 48 bytes":    tensor(12+1<<62, 0, []int64{1}, []int64{1}),
		`no "data/../1" in the zip file`: weightstest.Pickle("}").Text("a").
			Tensor("FloatStorage", "../1", 1, 0, nil, nil).Op("s"),
		"two tensors are called \"a.b\"": weightstest.Pickle("}(").Text("a.b").Tensor("FloatStorage", "0", 12, 0, nil, nil).
			Text("a").Op("}").Text("b").Tensor("FloatStorage", "0", 12, 0, nil, nil).Op("su"),
		`an instance of "posix.system" where a dictionary of tensors is expected`: weightstest.Pickle("cposix\nsystem\n").Text("false").Op("\x85R"),
		"tensor \"d.a\" of shape [] and strides []: offset 13 leaves": weightstest.Pickle("}").Text("d").Op("}").
			Text("a").Tensor("FloatStorage", "0", 12, 13, nil, nil).Op("ss"), // deeper down
		"a tensor of 65 dimensions":   tensor(12, 0, make([]int64, 65), make([]int64, 65)),
		"a tensor where a dictionary": weightstest.Pickle("").Tensor("FloatStorage", "0", 12, 0, nil, nil),
		"None where a dictionary":     weightstest.Pickle("N"),
		"asks for 4294967295 bytes":   weightstest.Pickle("X\xff\xff\xff\xff"),
	} {
		if _, err := read(pickled(zip.Store, p, map[string][]byte{"data/0": floats(binary.LittleEndian, 12)})); !errors.Is(err, weights.ErrFormat) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	// A dictionary in itself, many times over.
	p := weightstest.Pickle("}q\x00(")
	for i := range 256 {
		p = p.Text(strings.Repeat("n", 200) + string(rune('a'+i))).Op("h\x00")
	}
	if _, err := read(pickled(zip.Store, p.Op("u"), map[string][]byte{})); !errors.Is(err, weights.ErrFormat) || !strings.Contains(err.Error(), "names of more than") {
		t.Errorf("error %v", err)
	}
}

func TestHostileArchive(t *testing.T) {
	pickle := []byte(weightstest.Pickle("}").Text("a").Tensor("FloatStorage", "0", 12, 0, []int64{12}, []int64{1}).Op("s."))
	entries := func(more ...string) map[string][]byte {
		m := map[string][]byte{"data.pkl": pickle, "data/0": floats(binary.LittleEndian, 12)}
		for i := 0; i < len(more); i += 2 {
			m[more[i]] = []byte(more[i+1])
		}
		return m
	}
	whole := weightstest.Archive(zip.Store, entries())
	bomb := weightstest.Archive(zip.Deflate, entries("data.pkl", strings.Repeat("N0", 1<<20)))
	// A pickle larger than its file, which has enough beside it for others.
	r := rand.New(rand.NewPCG(1, 1))
	noise := make([]byte, 100<<10)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	packed := weightstest.Archive(zip.Deflate, entries("data.pkl", strings.Repeat("N0", 600_000), "data/1", string(noise)))
	twice := bytes.ReplaceAll(weightstest.Archive(zip.Store, entries("data/1", "")), []byte("data/1"), []byte("data/0"))
	// damaged changes a record of the central directory: method at 10, sizes at 20
	// and 24, local header at 42.
	damaged := func(name string, change func(record []byte)) []byte {
		b := bytes.Clone(whole)
		change(record(b, name))
		return b
	}
	put := binary.LittleEndian.PutUint32
	for want, b := range map[string][]byte{
		"1.6; convert it":                    []byte("\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."),
		"zip: not a valid":                   whole[:len(whole)-1],
		"with 0 data.pkl":                    weightstest.Archive(zip.Store, map[string][]byte{"a.npy": nil, "code/data.pkl": nil}),
		"byteorder \"middle\"":               weightstest.Archive(zip.Store, entries("byteorder", "middle")),
		"version \"11\" of":                  weightstest.Archive(zip.Store, entries("version", "11")),
		"version \"x\" of":                   weightstest.Archive(zip.Store, entries("version", "x")),
		"version of 101 bytes":               weightstest.Archive(zip.Store, entries("version", strings.Repeat("1", 101))),
		"no \"data/0\" in the zip":           weightstest.Archive(zip.Store, map[string][]byte{"data.pkl": pickle}),
		"\"archive/data/0\" comes twice":     twice,
		"data.pkl\" has 2097152 bytes in ":   bomb,
		"data.pkl of 1200000 bytes, want":    packed,
		"compression method 99 is not known": damaged("data/0", func(r []byte) { r[10] = 99 }),
		"has 47 bytes in 48":                 damaged("data/0", func(r []byte) { r[24] = 47 }),
		"has 48 bytes in 4294967280 at byte": damaged("data/0", func(r []byte) { put(r[20:], 0xfffffff0) }),
		"has 4294967280 bytes in 48 at byte": damaged("data/0", func(r []byte) { r[10] = 8; put(r[24:], 0xfffffff0) }),
		"data.pkl\": zip: checksum error":    bytes.Replace(whole, []byte("cpu"), []byte("gpu"), 1),
		"data.pkl\": zip: not a valid":       damaged("data.pkl", func(r []byte) { r[42]++ }),
	} {
		if _, err := read(b); !errors.Is(err, weights.ErrFormat) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	// What is wrong within a storage shows when it is read, every time.
	for method, want := range map[uint16]string{zip.Store: "checksum", zip.Deflate: ""} {
		b := weightstest.Archive(method, entries("data/0", strings.Repeat("numbers! ", 16)[:48]))
		at := bytes.Index(b, []byte("data/0")) + len("data/0") + 5
		b[at] ^= 1
		f, err := read(b)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := f.Tensor("a").Float32(); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("method %d: error %v", method, err)
			}
		}
	}
	// Every cut is an error.
	for n := range whole {
		if _, err := read(whole[:n]); err == nil {
			t.Fatalf("a file cut to %d of %d bytes is read", n, len(whole))
		}
	}
}

// record returns the central directory's record of an entry.
func record(b []byte, name string) []byte {
	return b[bytes.LastIndex(b, []byte("archive/"+name))-46:]
}

// TestOverlappingArchive reads entries that stand in the same bytes of the file.
func TestOverlappingArchive(t *testing.T) {
	for _, stored := range []int{1, 8} {
		p := weightstest.Pickle("}(")
		entries := map[string][]byte{"data/0": floats(binary.LittleEndian, 1000)}
		for i := range 8 {
			key := string(rune('0' + i))
			p = p.Text(key).Tensor("FloatStorage", key, 1000, 0, []int64{1000}, []int64{1})
			if i >= stored {
				entries["data/"+key] = nil
			} else {
				entries["data/"+key] = entries["data/0"]
			}
		}
		b := pickled(zip.Store, p.Op("u"), entries)
		for i := stored; i < 8; i++ {
			copy(record(b, "data/"+string(rune('0'+i)))[16:28], record(b, "data/0")[16:28])
			copy(record(b, "data/"+string(rune('0'+i)))[42:46], record(b, "data/0")[42:46])
		}
		if _, err := read(b); (err == nil) != (stored == 8) || err != nil && !strings.Contains(err.Error(), "has 4000 bytes in 4000 at byte") {
			t.Errorf("%d of 8 storages have bytes of their own: error %v", stored, err)
		}
	}
}

// FuzzPickle reads damaged pickles in sound archives, and damaged archives.
func FuzzPickle(f *testing.F) {
	s := weightstest.State{"a": {Shape: []int{2, 2}, Data: []float32{1, 2, 3, 4}}, "b": {Shape: []int{1}, Data: []float32{5}}}
	f.Add(s.Torch(true))
	f.Add(s.Torch(false))
	f.Add(weightstest.Archive(zip.Deflate, map[string][]byte{"data.pkl": []byte("}."), "byteorder": []byte("big")}))
	f.Add([]byte(weightstest.Pickle("}").Text("a").Tensor("FloatStorage", "0", 12, 1, []int64{2, 3}, []int64{1, 2}).Op("s.")))
	f.Add([]byte(weightstest.Pickle("\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94}\x94\x8c\x01bK\x01su.")))
	f.Add([]byte(weightstest.Pickle("}q\x00").Text("a").Op("h\x00s.")))
	f.Add([]byte(weightstest.Pickle("}q\x00").Text(strings.Repeat("n", 1000)).Op("q\x01" + strings.Repeat("h\x01h\x01\x93", 3000) + ".")))
	storage := floats(binary.LittleEndian, 12)
	f.Fuzz(func(t *testing.T, b []byte) {
		files := [][]byte{b}
		if len(b) < 1<<16 && !bytes.HasPrefix(b, []byte("PK")) {
			files = append(files, weightstest.Archive(zip.Store, map[string][]byte{"data.pkl": b, "data/0": storage}))
		}
		for _, b := range files {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			file, err := read(b)
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20+uint64(512*len(b)) {
				t.Fatalf("%d bytes to read a file of %d", n, len(b))
			}
			if err != nil {
				continue
			}
			for _, name := range file.Names() {
				tensor := file.Tensor(name)
				if v, err := tensor.Float32(); err == nil && len(v) != tensor.Len() {
					t.Errorf("%s: %d elements of %v", name, len(v), tensor.Shape)
				}
				if v, err := tensor.Int64(); err == nil && len(v) != tensor.Len() {
					t.Errorf("%s: %d elements of %v", name, len(v), tensor.Shape)
				}
			}
		}
	})
}
