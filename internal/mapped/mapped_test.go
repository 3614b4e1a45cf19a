package mapped

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"unsafe"
)

func open(t *testing.T) (*File, string) {
	t.Helper()
	folder := t.TempDir()
	m, err := Create(folder)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m, folder
}

// TestTake: memory is zero, begins at lines, does not overlap, and leaves no name behind.
func TestTake(t *testing.T) {
	m, folder := open(t)
	var all [][]byte
	for i, n := range []int{1, 64, 100, 3 << 20, 0, 700_000, 500_000} {
		b, err := m.Take(n)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) < n || len(b) > 0 && uintptr(unsafe.Pointer(&b[0]))%line != 0 {
			t.Fatalf("Take(%d) gives %d bytes at %p", n, len(b), b)
		}
		for j := range b {
			if b[j] != 0 {
				t.Fatalf("Take(%d): byte %d is %d", n, j, b[j])
			}
			b[j] = byte(i + 1)
		}
		all = append(all, b)
	}
	for i, b := range all {
		for j, x := range b {
			if x != byte(i+1) {
				t.Fatalf("byte %d of part %d is %d", j, i, x)
			}
		}
	}
	if n := m.Bytes(); n < 4<<20 || n > 8<<20 {
		t.Errorf("the file has %d bytes", n)
	}
	if names, err := filepath.Glob(filepath.Join(folder, "*")); err != nil || len(names) > 0 {
		t.Errorf("%v is in the folder (%v)", names, err)
	}
	if _, err := m.Take(-1); err == nil {
		t.Error("Take(-1) is no error")
	}
}

// TestClose: a closed file gives nothing.
func TestClose(t *testing.T) {
	m, _ := open(t)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Take(1); err == nil {
		t.Error("a closed file gives memory")
	}
	if _, err := Create(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Create in no folder: %v", err)
	}
}

// TestRegion: lists follow each other, and a nil region is the heap.
func TestRegion(t *testing.T) {
	b := make([]byte, RegionBytes(4*5, 2*3, 7)+line)
	for uintptr(unsafe.Pointer(&b[0]))%line != 0 {
		b = b[1:]
	}
	for _, r := range []*Region{nil, NewRegion(b)} {
		f, h, i := r.Float32s(5), r.Uint16s(3), r.Int8s(7)
		for _, x := range f {
			f[0] += x + 1
		}
		for j := range h {
			h[j] = 7
		}
		for j := range i {
			i[j] = 9
		}
		if len(f) != 5 || len(h) != 3 || len(i) != 7 || f[1] != 0 || h[2] != 7 || i[6] != 9 || len(r.Float32s(0)) != 0 {
			t.Errorf("%v %v %v", f, h, i)
		}
	}
}
