//go:build linux || darwin

package mapped

import (
	"fmt"
	"os"
	"syscall"
)

// backing is an open file.
type backing struct{ f *os.File }

func createIn(folder string) (backing, error) {
	f, err := os.CreateTemp(folder, "subquad-pages-")
	if err != nil {
		return backing{}, fmt.Errorf("mapped: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return backing{}, fmt.Errorf("mapped: %w", err)
	}
	return backing{f}, nil
}

// extend makes the file longer by n bytes of disk from one on, and maps these.
func (b backing) extend(from int64, n int) ([]byte, error) {
	if err := b.reserve(from, int64(n)); err != nil {
		_ = b.f.Truncate(from)
		return nil, fmt.Errorf("mapped: %d bytes after %d: %w", n, from, err)
	}
	part, err := syscall.Mmap(int(b.f.Fd()), from, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		_ = b.f.Truncate(from)
		return nil, fmt.Errorf("mapped: %d bytes after %d: %w", n, from, err)
	}
	return part, nil
}

// fill writes zeros, so that the disk has room for all of what is mapped: to write to
// memory that it has no room for would end the process.
func (b backing) fill(from, n int64) error {
	zeros := make([]byte, min(n, leastStep))
	for n > 0 {
		m := min(n, int64(len(zeros)))
		if _, err := b.f.WriteAt(zeros[:m], from); err != nil {
			return err
		}
		from, n = from+m, n-m
	}
	return nil
}

func (b backing) unmap(parts [][]byte) error {
	var first error
	for _, p := range parts {
		if err := syscall.Munmap(p); err != nil && first == nil {
			first = fmt.Errorf("mapped: %w", err)
		}
	}
	if err := b.f.Close(); err != nil && first == nil {
		first = fmt.Errorf("mapped: %w", err)
	}
	return first
}
