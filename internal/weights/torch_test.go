package weights_test

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/subquad/subquad/internal/weights"
	"github.com/subquad/subquad/internal/weights/weightstest"
)

func read(b []byte) (*weights.File, error) {
	return weights.Read(bytes.NewReader(b), int64(len(b)))
}

// floats returns 0, 1, 2, ... n-1 in float32.
func floats(order binary.AppendByteOrder, n int) (b []byte) {
	for i := range n {
		b = order.AppendUint32(b, math.Float32bits(float32(i)))
	}
	return b
}

// pickled returns a file of one dictionary's tensors, all of storage 0.
func pickled(method uint16, p weightstest.Pickle, entries map[string][]byte) []byte {
	entries["data.pkl"] = p.Op(".")
	return weightstest.Archive(method, entries)
}

func TestReadTorch(t *testing.T) {
	s := weightstest.State{}
	r := rand.New(rand.NewPCG(1, 1))
	s.Put(r, "a.weight", 1, 0, 3, 1, 5)
	s.Put(r, "b", 1, 0)
	s.Put(r, "none", 1, 0, 4, 0)
	s.Put(r, "long", 1, 0, 40000)
	for _, training := range []bool{false, true} {
		f, err := read(s.Torch(training))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(f.Names(), []string{"a.weight", "b", "long", "none"}) || f.Metadata != nil {
			t.Errorf("names %v, metadata %v", f.Names(), f.Metadata)
		}
		for name, want := range s {
			tensor := f.Tensor(name)
			got, err := tensor.Float32()
			if err != nil || !slices.Equal(got, want.Data) || !slices.Equal(tensor.Shape, want.Shape) || tensor.Type != "F32" {
				t.Errorf("%s: %v %v, error %v", name, tensor.Type, tensor.Shape, err)
			}
		}
	}
}

// TestTorchLayouts reads tensors that are not their storage, row after row, in both
// byte orders, stored and compressed.
func TestTorchLayouts(t *testing.T) {
	type layout struct {
		offset         int64
		shape, strides []int64
		want           []float32
	}
	cases := map[string]layout{
		"all":        {0, []int64{3, 4}, []int64{4, 1}, []float32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}},
		"part":       {5, []int64{2, 2}, []int64{2, 1}, []float32{5, 6, 7, 8}},
		"transposed": {0, []int64{4, 3}, []int64{1, 4}, []float32{0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11}},
		"column":     {1, []int64{3, 1}, []int64{4, 7}, []float32{1, 5, 9}},
		"expanded":   {3, []int64{2, 2}, []int64{0, 1}, []float32{3, 4, 3, 4}},
		"cube":       {1, []int64{2, 2, 2}, []int64{2, 6, 1}, []float32{1, 2, 7, 8, 3, 4, 9, 10}},
		"ones":       {2, []int64{1, 3, 1}, []int64{99, 1, 99}, []float32{2, 3, 4}},
		"scalar":     {11, nil, nil, []float32{11}},
		"none":       {99, []int64{0, 1 << 30}, []int64{-1, 5}, nil},
	}
	for order, name := range map[binary.AppendByteOrder]string{binary.LittleEndian: "little", binary.BigEndian: "big"} {
		for _, method := range []uint16{zip.Store, zip.Deflate} {
			p := weightstest.Pickle("\x80\x02}(")
			for name, c := range cases {
				p = p.Text(name).Tensor("FloatStorage", "0", 12, c.offset, c.shape, c.strides)
			}
			f, err := read(pickled(method, p.Op("u"), map[string][]byte{"data/0": floats(order, 12), "byteorder": []byte(name)}))
			if err != nil {
				t.Fatal(err)
			}
			for name, c := range cases {
				got, err := f.Tensor(name).Float32()
				if err != nil || !slices.Equal(got, c.want) || f.Tensor(name).Len() != len(c.want) {
					t.Errorf("%v, method %d, %s: %v, error %v, want %v", order, method, name, got, err, c.want)
				}
			}
		}
	}
}

func TestTorchTypes(t *testing.T) {
	type one struct {
		name weights.Type
		bits string // of the number one
	}
	for class, want := range map[string]one{
		"DoubleStorage": {"F64", "\x00\x00\x00\x00\x00\x00\xf0\x3f"}, "FloatStorage": {"F32", "\x00\x00\x80\x3f"},
		"HalfStorage": {"F16", "\x00\x3c"}, "BFloat16Storage": {"BF16", "\x80\x3f"},
		"LongStorage": {"I64", "\x01\x00\x00\x00\x00\x00\x00\x00"}, "IntStorage": {"I32", "\x01\x00\x00\x00"},
		"ShortStorage": {"I16", "\x01\x00"}, "CharStorage": {"I8", "\x01"}, "ByteStorage": {"U8", "\x01"}, "BoolStorage": {"BOOL", "\x01"},
	} {
		p := weightstest.Pickle("}").Text("a").Tensor(class, "0", 3, 1, []int64{2}, []int64{1})
		zero := strings.Repeat("\x00", len(want.bits))
		f, err := read(pickled(zip.Store, p.Op("s"), map[string][]byte{"data/0": []byte(zero + want.bits + zero)}))
		if err != nil {
			t.Fatal(err)
		}
		a := f.Tensor("a")
		if a.Type != want.name {
			t.Errorf("%s is %s, want %s", class, a.Type, want.name)
		}
		if strings.Contains(string(want.name), "F") {
			if v, err := a.Float32(); err != nil || !slices.Equal(v, []float32{1, 0}) {
				t.Errorf("%s: %v, error %v", class, v, err)
			}
		} else if v, err := a.Int64(); err != nil || !slices.Equal(v, []int64{1, 0}) {
			t.Errorf("%s: %v, error %v", class, v, err)
		}
	}
	// Bytes, of which a dtype makes elements.
	p := weightstest.Pickle("}").Text("a").Global("torch._utils", "_rebuild_tensor_v3").Op("(").Storage("UntypedStorage", "0", 6).
		Int(1).Ints([]int64{2}).Ints([]int64{1}).Op("\x89Nctorch\nuint16\ntRs")
	f, err := read(pickled(zip.Store, p, map[string][]byte{"data/0": []byte("\x01\x00\x02\x00\xff\xff")}))
	if err != nil {
		t.Fatal(err)
	}
	if v, err := f.Tensor("a").Int64(); err != nil || !slices.Equal(v, []int64{2, 65535}) || f.Tensor("a").Type != "U16" {
		t.Errorf("%v, error %v", v, err)
	}
	// A type that is not known is carried, and not read.
	p = weightstest.Pickle("}").Text("a").Tensor("ComplexFloatStorage", "0", 2, 0, []int64{2}, []int64{1})
	f, err = read(pickled(zip.Store, p.Op("s"), map[string][]byte{"data/0": make([]byte, 16)}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Tensor("a").Float32(); err == nil || !strings.Contains(err.Error(), "torch.ComplexFloatStorage") {
		t.Errorf("error %v", err)
	}
}

// TestTorchDictionaries finds the state dict among other things.
func TestTorchDictionaries(t *testing.T) {
	a := func(p weightstest.Pickle, name string) weightstest.Pickle {
		return p.Text(name).Tensor("FloatStorage", "0", 1, 0, nil, nil)
	}
	for want, p := range map[string]weightstest.Pickle{
		"[]":    weightstest.Pickle("}"),
		"[a]":   a(weightstest.Pickle("}("), "a").Op("K\x01N").Text("c").Op("Nu"),
		"[m.a]": a(weightstest.Pickle("}").Text("m").Op("}"), "a").Op("ss"),
		"[s]":   a(a(weightstest.Pickle("}("), "x").Text("state_dict").Op("}"), "s").Op("su"),
		"[ms]":  a(a(weightstest.Pickle("}("), "x").Text("model_state_dict").Op("}"), "ms").Op("su"),
		// A tensor within an object is not looked for, nor its storage.
		"[b o]": a(weightstest.Pickle("}(").Text("o").Global("a", "B").Op(")\x81}").Text("a").Tensor("FloatStorage", "7", 1, 0, nil, nil).Op("sb"), "b").Op("u"),
	} {
		f, err := read(pickled(zip.Store, p, map[string][]byte{"data/0": floats(binary.LittleEndian, 1)}))
		if err != nil || fmt.Sprint(f.Names()) != want {
			t.Errorf("%q: error %v, want %s", p, err, want)
		}
	}
	// A dictionary in itself ends.
	p := a(weightstest.Pickle("}q\x00("), "a").Text("self").Op("h\x00u")
	f, err := read(pickled(zip.Store, p, map[string][]byte{"data/0": floats(binary.LittleEndian, 1)}))
	if err != nil || len(f.Names()) != 9 {
		t.Errorf("%d tensors, error %v", len(f.Names()), err)
	}
}

func TestOpenTorchCheckpoint(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	one := func(name string, v float32) weightstest.State {
		return weightstest.State{name: {Shape: []int{1}, Data: []float32{v}}}
	}
	expect := func(path, names string, first float32) {
		t.Helper()
		f, err := weights.OpenCheckpoint(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		v, err := f.Tensor(f.Names()[0]).Float32()
		if err != nil || fmt.Sprint(f.Names()) != names || v[0] != first {
			t.Errorf("%s: %v, %v, error %v", path, f.Names(), v, err)
		}
	}
	write("weights.ckpt", one("w", 1).Torch(true))
	expect(dir, "[w]", 1)
	write("a.bin", one("a", 2).Torch(false))
	write("b.bin", one("b", 3).File())
	write("pytorch_model.bin.index.json", []byte(`{"weight_map": {"a": "a.bin", "b": "b.bin"}}`))
	expect(dir, "[a b]", 2)
	expect(filepath.Join(dir, "pytorch_model.bin.index.json"), "[a b]", 2)
	write("pytorch_model.bin", one("p", 4).Torch(false))
	expect(dir, "[p]", 4)
	write("model.safetensors", one("s", 5).File())
	expect(dir, "[s]", 5)
	expect(filepath.Join(dir, "weights.ckpt"), "[w]", 1)
}

// TestTorchFile reads a file of PyTorch 1.13: state_dict has views of the numbers 0
// to 23 in a matrix of 4 x 6, in most types, beside objects that are passed over.
func TestTorchFile(t *testing.T) {
	f, err := weights.Open(filepath.Join("testdata", "torch.ckpt"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const all = "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23"
	wants := map[string]string{
		"all": "F32 [4 6] [" + all + "]", "again": "F32 [4 6] [" + all + "]",
		"transposed": "F32 [6 4] [0 6 12 18 1 7 13 19 2 8 14 20 3 9 15 21 4 10 16 22 5 11 17 23]",
		"part":       "F32 [2 3] [8 9 10 14 15 16]", "column": "F32 [4] [3 9 15 21]", "expanded": "F32 [3] [12 12 12]",
		"none": "F32 [0 6] []", "scalar": "F32 [] [3.5]", "parameter": "F32 [1 6] [0 1 2 3 4 5]",
		"half": "F16 [4 6] [" + all + "]", "bfloat16": "BF16 [4 6] [" + all + "]", "double": "F64 [4 6] [" + all + "]",
		"long": "I64 [4 6] [" + all + "]", "int": "I32 [4 6] [" + all + "]", "short": "I16 [4 6] [" + all + "]",
		"char": "I8 [4 6] [" + all + "]", "byte": "U8 [4 6] [" + all + "]",
		"bool": "BOOL [4 6] [0 0 0 0 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1]", "complex": "torch.ComplexFloatStorage [3] []",
	}
	opaque := map[string]string{"quantised": "a quantized tensor", "sparse": "a sparse tensor"}
	for _, name := range f.Names() {
		a := f.Tensor(name)
		var v any
		if v, err = a.Float64(); err != nil {
			v, err = a.Int64()
		}
		if what, ok := opaque[name]; ok {
			if err == nil || !strings.Contains(err.Error(), what) || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: error %v, want one that says %s", name, err, what)
			}
			continue
		}
		if got := fmt.Sprintf("%s %v %v", a.Type, a.Shape, v); got != wants[name] || (err != nil) != (name == "complex") {
			t.Errorf("%s: %s, error %v, want %s", name, got, err, wants[name])
		}
		delete(wants, name)
	}
	if len(wants) > 0 {
		t.Errorf("not found: %v", wants)
	}
}

// TestOpaque: a tensor that cannot be read is not absent. A subclass of tensors can be
// read.
func TestOpaque(t *testing.T) {
	p := weightstest.Pickle("}(").Text("lm_head.weight").Global("torch._utils", "_rebuild_qtensor").Op(")R").
		Text("sub.weight").Global("torch._tensor", "_rebuild_from_type_v2").Op("(").
		Global("torch._utils", "_rebuild_tensor_v2").Global("nowhere", "Sub").Op("(").Storage("FloatStorage", "0", 4).
		Int(0).Ints([]int64{2, 2}).Ints([]int64{2, 1}).Op("\x89Nt}tR").
		Text("eps").Op("G\x3f\xf0\x00\x00\x00\x00\x00\x00u")
	f, err := read(pickled(zip.Store, p, map[string][]byte{"data/0": floats(binary.LittleEndian, 4)}))
	if err != nil {
		t.Fatal(err)
	}
	find := func() *weights.Finder {
		c := weights.NewFinder("test", weights.ErrFormat)
		for _, name := range f.Names() {
			c.Add(name, f.Tensor(name))
		}
		return &c
	}
	c := find()
	if m := c.Matrix("sub.weight", 2, 2); c.Err != nil || !slices.Equal(m.Data, []float32{0, 1, 2, 3}) {
		t.Errorf("a subclass: %v, error %v", m, c.Err)
	}
	if c.Has("bias") || !c.Has("lm_head.weight") || !c.Has("eps") {
		t.Error("what there is")
	}
	for name, look := range map[string]func(c *weights.Finder){
		`tensor lm_head.weight is a quantized tensor`: func(c *weights.Finder) { c.Matrix("lm_head.weight", 2, 2) },
		`lm_head.weight is a quantized tensor`:        func(c *weights.Finder) { c.Dim("lm_head.weight", 0) },
		`eps is a Python float`:                       func(c *weights.Finder) { c.Vector("eps", 1) },
		`no tensor bias; the file has eps, lm_head`:   func(c *weights.Finder) { c.Vector("bias", 1) },
	} {
		c := find()
		if look(c); c.Err == nil || !strings.Contains(c.Err.Error(), name) {
			t.Errorf("error %v, want %s", c.Err, name)
		}
	}
}
