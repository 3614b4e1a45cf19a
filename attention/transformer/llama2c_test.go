package transformer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const stories = goldenFolder + "stories260K/"

// TestLlama2C reads the same model of version 0, with a head of its own, and of version 1.
func TestLlama2C(t *testing.T) {
	data, err := os.ReadFile(stories + "stories260K.bin")
	must(t, err)
	h, err := readLlama2C(data[:256], int64(len(data)))
	must(t, err)
	if h == nil || h.dim != 64 || !h.shared {
		t.Fatalf("header %+v", h)
	}
	floats := map[string][]byte{}
	h.each(func(name string, _ part, n, at float64) { floats[name] = data[28+4*int(at):][:4*int(n)] })
	write := func(name string, head []byte, h llama2c) string {
		file := append([]byte(nil), head...)
		h.each(func(name string, _ part, n, at float64) {
			if name == headName {
				name = "model." + embedding
			}
			file = append(file, floats[name]...)
		})
		path := filepath.Join(t.TempDir(), name+".bin")
		must(t, os.WriteFile(path, file, 0o600))
		return path
	}
	alone, first := *h, *h
	alone.shared = false
	untied := append([]byte(nil), data[:28]...)
	binary.LittleEndian.PutUint32(untied[20:], uint32(-h.vocab))
	first.version, first.from = 1, 256
	head := make([]byte, 256)
	copy(head, "24ka")
	head[4], head[36] = 1, 1
	copy(head[8:], data[:28])
	m, err := Open(stories+"stories260K.bin", Config{})
	must(t, err)
	if s := m.Shape(); s.MaxPosition != 512 || s.BOS != 1 || s.ModelType != "llama" {
		t.Errorf("shape %+v", s)
	}
	ids := tokens(m, 50)
	want, got := zeros(50, m.shape.Vocab), zeros(50, m.shape.Vocab)
	must(t, m.Forward(want, ids))
	for _, path := range []string{write("untied", untied, alone), write("one", head, first)} {
		m, err := Open(path, Config{})
		must(t, err)
		must(t, m.Forward(got, ids))
		same(t, path, got.Data, want.Data)
	}
	if _, err := Open(stories+"stories260K.bin", Config{MaxBytes: 1 << 10}); !errors.Is(err, ErrConfig) {
		t.Errorf("error %v of too large a model", err)
	}
	bad := func(name string, data []byte) string {
		path := filepath.Join(t.TempDir(), name+".bin")
		must(t, os.WriteFile(path, data, 0o600))
		return path
	}
	head[4] = 2
	two := append([]byte(nil), head...)
	head[4] = 1
	binary.LittleEndian.PutUint32(head[8:], 0)
	for name, path := range map[string]string{
		"version 2": bad("two", two), "dim 0": bad("zero", head), "want": bad("short", append([]byte("24ka\x01\x00\x00\x00"), data[:900]...)),
	} {
		if _, err := Open(path, Config{}); !errors.Is(err, ErrCheckpoint) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if _, err := Open(bad("cut", data[:len(data)-4]), Config{}); err == nil {
		t.Error("a file that is cut off opens")
	}
}

// FuzzLlama2C wants an error or a header that fits the file.
func FuzzLlama2C(f *testing.F) {
	f.Add([]byte("24ka\x01\x00\x00\x00"), int64(3))
	f.Add(bytes.Repeat([]byte{1, 0, 0, 0}, 7), int64(100))
	f.Add(bytes.Repeat([]byte{0xff, 0xff, 0xff, 0x7f}, 9), int64(1<<62))
	f.Fuzz(func(t *testing.T, head []byte, size int64) {
		h, err := readLlama2C(head, size)
		if h != nil && (err != nil || h.bytes() != size) {
			t.Errorf("%+v of %d bytes: %v", h, size, err)
		}
	})
}

// TestOpenTokenizer finds a tokenizer in a folder, by either name.
func TestOpenTokenizer(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenTokenizer(dir); !errors.Is(err, ErrCheckpoint) {
		t.Errorf("error %v of an empty folder", err)
	}
	data, err := os.ReadFile(stories + "tok512.bin")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "tokenizer.bin"), data, 0o600))
	words, err := OpenTokenizer(dir)
	must(t, err)
	const text = "Once upon a time\n\xff\xfe \x80"
	ids, err := words.Encode(text, false)
	must(t, err)
	if back := words.Decode(append([]int32{1}, ids...)); back != text {
		t.Errorf("%q becomes %q", text, back)
	}
	must(t, os.WriteFile(filepath.Join(dir, "tokenizer.json"), []byte(`{"model": {"type": "WordLevel", "vocab": {"a": 0, "[UNK]": 1}, "unk_token": "[UNK]"}}`), 0o600))
	words, err = OpenTokenizer(dir)
	must(t, err)
	if ids, err := words.Encode("a", true); err != nil || len(ids) != 1 || words.Size() != 2 || words.Decode(ids) != "a" {
		t.Errorf("%v, %v", ids, err)
	}
	for _, cut := range []int{0, 3, 9, 700} {
		path := filepath.Join(t.TempDir(), "cut.bin") // no tokenizer.json is beside it
		must(t, os.WriteFile(path, data[:cut], 0o600))
		if _, err := OpenTokenizer(path); !errors.Is(err, ErrCheckpoint) {
			t.Errorf("%d bytes: error %v", cut, err)
		}
	}
}
