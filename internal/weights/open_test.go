package weights

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/subquad/subquad"
)

// one is a file of one tensor with one element.
func one(name string, v float32) []byte {
	return file(fmt.Sprintf(`{"%s":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, name),
		binary.LittleEndian.AppendUint32(nil, math.Float32bits(v)))
}

func put(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestMmap reads the same from a mapped file, a whole checkpoint too, and a stored
// state as a stream.
func TestMmap(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "a.safetensors"), one("a", 3))
	put(t, filepath.Join(dir, "model.safetensors.index.json"), []byte(`{"weight_map": {"a": "a.safetensors"}}`))
	for _, options := range [][]subquad.OpenOption{nil, {subquad.WithMmap()}, {{}, subquad.WithMmap()}} {
		f, err := OpenCheckpoint(dir, options...)
		if err != nil {
			t.Fatal(err)
		}
		if v, err := f.Tensor("a").Float32(); err != nil || v[0] != 3 {
			t.Errorf("%v, error %v", v, err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if _, err := f.Tensor("a").Float32(); err == nil {
			t.Error("a closed file was read")
		}
		s, err := OpenFile(filepath.Join(dir, "a.safetensors"), options...)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(s.Reader())
		if err != nil || !bytes.Equal(b, one("a", 3)) || s.Size() != int64(len(b)) {
			t.Errorf("%d bytes of %d, error %v", len(b), s.Size(), err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		put(t, filepath.Join(dir, "empty"), nil)
		if _, err := Open(filepath.Join(dir, "empty"), options...); !errors.Is(err, ErrFormat) {
			t.Errorf("an empty file: error %v", err)
		}
		if _, err := Open(filepath.Join(dir, "none"), options...); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("no file: error %v", err)
		}
	}
}

// TestIrregular: what is no regular file is an error at once, wherever it stands.
func TestIrregular(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	paths := []string{dir, "/dev/zero", "/dev/stdin"}
	if makePipe(pipe) == nil {
		paths = append(paths, pipe)
		for _, name := range []string{"model.safetensors.index.json", "x.safetensors"} {
			link := filepath.Join(dir, name)
			if os.Symlink(pipe, link) == nil {
				paths = append(paths, link)
			}
		}
	}
	if os.Symlink("/dev/zero", filepath.Join(dir, "config.json")) == nil {
		paths = append(paths, filepath.Join(dir, "config.json"))
	}
	for _, path := range paths {
		if info, err := os.Stat(path); err != nil || info.Mode().IsRegular() {
			continue // this system has no such thing
		}
		if _, err := Open(path); !errors.Is(err, subquad.ErrCheckpoint) || !strings.Contains(err.Error(), "regular file") {
			t.Errorf("%s: error %v", path, err)
		}
		if _, err := Open(path, subquad.WithMmap()); err == nil {
			t.Errorf("%s was mapped", path)
		}
		if _, err := ReadFile(path, MaxText); err == nil {
			t.Errorf("%s was read", path)
		}
		if path != dir {
			if _, err := OpenCheckpoint(path); err == nil {
				t.Errorf("%s was opened as a checkpoint", path)
			}
		}
	}
	long := filepath.Join(dir, "long")
	put(t, long, make([]byte, 100))
	if _, err := ReadFile(long, 99); err == nil || !strings.Contains(err.Error(), "has 100 bytes, want 99 at most") {
		t.Errorf("error %v", err)
	}
	if b, err := ReadFile(long, 100); err != nil || len(b) != 100 {
		t.Errorf("%d bytes, error %v", len(b), err)
	}
}

// TestFolders finds checkpoints under other names.
func TestFolders(t *testing.T) {
	for _, names := range [][]string{
		{"consolidated.safetensors", "other.safetensors"}, {"model.pt"}, {"last.ckpt", "a.safetensors", "b.safetensors"},
		{"only.safetensors", "notes.txt"},
	} {
		dir := t.TempDir()
		for i, name := range names {
			put(t, filepath.Join(dir, name), one(fmt.Sprint("t", i), 1))
		}
		f, err := OpenCheckpoint(dir)
		if err != nil || !slices.Equal(f.Names(), []string{"t0"}) {
			t.Errorf("%v: error %v", names, err)
			continue
		}
		f.Close()
	}
	dir := t.TempDir()
	put(t, filepath.Join(dir, "a.safetensors"), one("a", 1))
	put(t, filepath.Join(dir, "b.safetensors"), one("b", 1))
	if _, err := OpenCheckpoint(dir); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "give one of a.safetensors, b.safetensors") {
		t.Errorf("error %v", err)
	}
}

// TestWrappers finds tensors by their plain names.
func TestWrappers(t *testing.T) {
	names := []string{
		"module.a", "_orig_mod.b", "module._orig_mod.c", "base_model.model.d", "layers.0._orig_mod.e", "module.module.f",
		"model_state.g", "ema.g", "h", "ema.h", "module.",
	}
	header, body := "{", []byte{}
	for i, name := range names {
		if i > 0 {
			header += ","
		}
		header += fmt.Sprintf(`"%s":{"dtype":"U8","shape":[1],"data_offsets":[%d,%d]}`, name, i, i+1)
		body = append(body, byte(i))
	}
	f, err := parse(file(header+"}", body))
	if err != nil {
		t.Fatal(err)
	}
	wants := map[string]int64{"a": 0, "b": 1, "c": 2, "d": 3, "layers.0.e": 4, "f": 5, "g": 6, "ema.g": 7, "h": 8, "ema.h": 9, "module.": 10}
	for name, want := range wants {
		if x := f.Tensor(name); x == nil || x.Name != names[want] {
			t.Errorf("%s: %v", name, x)
		} else if v, err := x.Int64(); err != nil || v[0] != want {
			t.Errorf("%s: %v, error %v, want %d", name, v, err, want)
		}
	}
	if len(f.Names()) != len(wants) {
		t.Errorf("names %v", f.Names())
	}
	// Shards whose index has the names of the files.
	dir := t.TempDir()
	put(t, filepath.Join(dir, "a.bin"), one("module.a", 4))
	put(t, filepath.Join(dir, "i.json"), []byte(`{"weight_map": {"module.a": "a.bin"}}`))
	f, err = OpenCheckpoint(filepath.Join(dir, "i.json"))
	if err != nil || f.Tensor("a") == nil {
		t.Fatalf("error %v", err)
	}
	f.Close()
}

// TestSniff says what other files are.
func TestSniff(t *testing.T) {
	for text, want := range map[string]string{
		"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 5\n": "Git LFS",
		"\r\n <!DOCTYPE html>\n<html>":                                          "HTML",
		"<HTML lang=en>":                                                        "HTML",
		"\xef\xbb\xbf<html>":                                                    "HTML",
		"GGUF\x03\x00\x00\x00\x00\x00\x00\x00":                                  "GGUF",
		"BZh91AY&SY\x00\x00\x00":                                                "bzip2",
		"\xfd7zXZ\x00\x00\x04":                                                  "xz",
		"\x28\xb5\x2f\xfd\x04\x00\x00\x00":                                      "Zstandard",
		"\x1f\x8b\x08\x00\x00\x00\x00\x00":                                      "gzip",
		"@SEQ_ID\nGATTTGG\n+\n!''*((((":                                         "FASTQ",
		">chr1\nACGT\n":                                                         "FASTA",
		"##gff-version 3\nctg123 . gene":                                        "GFF",
		"{\"model_type\": \"mamba\"}":                                           "JSON",
		"GGUF":                                                                  "GGUF", // shorter than a header's length
	} {
		if _, err := parse([]byte(text)); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one that says %s", text, err, want)
		}
	}
	// A header as long as makes its length another format's mark.
	header := one("a", 1)[8:]
	text := string(header[:len(header)-4])
	b := file(text+strings.Repeat(" ", int(binary.LittleEndian.Uint16([]byte("\x1f\x8b")))-len(text)), header[len(header)-4:])
	if f, err := parse(b); err != nil || f.Tensor("a") == nil {
		t.Errorf("error %v", err)
	}
}

// TestMemory: what a file makes the reader take is in proportion to its size.
func TestMemory(t *testing.T) {
	joined := "}X\x00\x00\x08\x00" + strings.Repeat("n", 512<<10) + "q\x00" + strings.Repeat("h\x00h\x00\x93", 209715) + "."
	deep := strings.Repeat("}", 1000) + "."
	negated := "cm\n" + strings.Repeat("k", 100<<10) + "\nq\x00" + "0" +
		"ctorch._utils\n_rebuild_tensor_v2\nq\x01((U\x07storageh\x00U\x01kNK\x04tQK\x01))\x89N}U\x03neg\x88stq\x020}" +
		"(" + func() (s string) {
		for i := range 10000 {
			s += fmt.Sprintf("U\x05%05dh\x01h\x02R", i)
		}
		return s
	}() + "u."
	for name, text := range map[string]string{"names joined": joined, "dictionaries": deep, "negated views": negated} {
		var err error
		if n := took(func() { _, err = unpickle([]byte(text)) }); n > 1<<20+uint64(64*len(text)) {
			t.Errorf("%s: %d bytes for a pickle of %d (error %v)", name, n, len(text), err)
		}
	}
}
