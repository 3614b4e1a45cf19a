package weightstest

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
)

// Pickle is a pickle under construction. Its methods return it with opcodes added.
type Pickle []byte

// Op adds opcodes as they are.
func (p Pickle) Op(ops string) Pickle { return append(p, ops...) }

// Text adds a string.
func (p Pickle) Text(s string) Pickle {
	p = binary.LittleEndian.AppendUint32(append(p, 'X'), uint32(len(s)))
	return append(p, s...)
}

// Int adds an integer.
func (p Pickle) Int(n int64) Pickle {
	return binary.LittleEndian.AppendUint64(append(p, 0x8a, 8), uint64(n))
}

// Ints adds a tuple of integers.
func (p Pickle) Ints(list []int64) Pickle {
	p = p.Op("(")
	for _, n := range list {
		p = p.Int(n)
	}
	return p.Op("t")
}

// Global adds a name of a module, "torch FloatStorage".
func (p Pickle) Global(module, name string) Pickle {
	return p.Op("c" + module + "\n" + name + "\n")
}

// Storage adds a storage of count elements.
func (p Pickle) Storage(class, key string, count int64) Pickle {
	return p.Op("(").Text("storage").Global("torch", class).Text(key).Text("cpu").Int(count).Op("tQ")
}

// Tensor adds a tensor of a storage of count elements.
func (p Pickle) Tensor(class, key string, count, offset int64, shape, strides []int64) Pickle {
	return p.Global("torch._utils", "_rebuild_tensor_v2").Op("(").Storage(class, key, count).
		Int(offset).Ints(shape).Ints(strides).Op("\x89ccollections\nOrderedDict\n)RtR")
}

// Archive returns a zip file of entries in the folder "archive", stored or
// compressed (zip.Store, zip.Deflate).
func Archive(method uint16, entries map[string][]byte) []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		w, err := z.CreateHeader(&zip.FileHeader{Name: "archive/" + name, Method: method})
		if err == nil {
			_, err = w.Write(entries[name])
		}
		if err != nil {
			panic(err)
		}
	}
	if err := z.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// Torch returns the checkpoint as torch.save writes it: under "state_dict" of a
// dictionary, beside what training adds, or by itself.
func (s State) Torch(training bool) []byte {
	entries := map[string][]byte{"version": []byte("3\n"), "byteorder": []byte("little")}
	p := Pickle("\x80\x02")
	if training {
		p = p.Op("}(").Text("hyper_parameters").Global("omegaconf.dictconfig", "DictConfig").Op(")\x81}b").
			Text("callbacks").Global("os", "system").Op("(").Text("false").Op("tR").Text("state_dict")
	}
	p = p.Op("ccollections\nOrderedDict\n)R(")
	for i, name := range slices.Sorted(maps.Keys(s)) {
		t, key := s[name], fmt.Sprint(i)
		shape, strides, n := []int64{}, make([]int64, len(t.Shape)), int64(1)
		for i := len(t.Shape) - 1; i >= 0; i-- {
			strides[i] = n
			n *= int64(t.Shape[i])
		}
		for _, d := range t.Shape {
			shape = append(shape, int64(d))
		}
		body := []byte{}
		for _, v := range t.Data {
			body = binary.LittleEndian.AppendUint32(body, math.Float32bits(v))
		}
		entries["data/"+key] = body
		p = p.Text(name).Tensor("FloatStorage", key, n, 0, shape, strides)
	}
	p = p.Op("u}").Text("_metadata").Op("}sb")
	if training {
		p = p.Op("u")
	}
	entries["data.pkl"] = p.Op(".")
	return Archive(zip.Store, entries)
}
