package weights

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestOpenCheckpoint(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := OpenCheckpoint(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty folder: error %v", err)
	}
	for i, name := range []string{"a", "b"} {
		body := binary.LittleEndian.AppendUint32(nil, math.Float32bits(float32(i+1)))
		write(name+".safetensors", file(fmt.Sprintf(`{"%s":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, name), body))
	}
	const index = "model.safetensors.index.json"
	write(index, []byte(`{"metadata": {"total_size": 8}, "weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}`))
	for _, path := range []string{dir, filepath.Join(dir, index)} {
		f, err := OpenCheckpoint(path)
		if err != nil {
			t.Fatal(err)
		}
		for i, name := range f.Names() {
			if got, err := f.Tensor(name).Float32(); err != nil || !slices.Equal(got, []float32{float32(i + 1)}) {
				t.Errorf("%s: %v, error %v", name, got, err)
			}
		}
		if err := f.Close(); err != nil || len(f.Names()) != 2 {
			t.Errorf("%d tensors, error %v", len(f.Names()), err)
		}
		if _, err := f.Tensor("a").Float32(); err == nil {
			t.Error("a closed file was read")
		}
	}
	for _, text := range []string{``, `{}`, `{"weight_map": []}`, `{"weight_map": {"c": "a.safetensors"}}`, `{"weight_map": {"a": "../a.safetensors"}}`, `{"weight_map": {"a": "` + index + `"}}`} {
		write(index, []byte(text))
		if _, err := OpenCheckpoint(dir); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: error %v", text, err)
		}
	}
	write("model.safetensors", file("{}", nil))
	f, err := OpenCheckpoint(dir)
	if err != nil || len(f.Names()) != 0 {
		t.Errorf("error %v", err)
	}
}
