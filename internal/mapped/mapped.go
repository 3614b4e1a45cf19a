// Package mapped has memory that stands in a file: more than the machine has of its own, of
// which the system keeps in memory what is in use. The file has no name once it is made, so
// that nobody else can shorten it under its readers, and is gone with the process.
package mapped

import (
	"fmt"
	"math"
	"sync"
	"unsafe"

	"github.com/subquad/subquad/internal/kernel"
)

// File is memory in a file. It is safe for concurrent use.
type File struct {
	mu    sync.Mutex
	f     backing
	parts [][]byte
	rest  []byte // of the last part, not given away
	size  int64
	off   bool
}

// Of the file's growth: its least and its largest step, in bytes.
const (
	leastStep = 1 << 20
	mostStep  = 64 << 20
)

// line is what memory begins at multiples of.
const line = 64

// Create makes a file in a folder, empty and without a name. Where files cannot be memory
// the error matches errors.ErrUnsupported; others are the system's.
func Create(folder string) (*File, error) {
	m := new(File)
	var err error
	if m.f, err = createIn(folder); err != nil {
		return nil, err
	}
	return m, nil
}

// Take returns n more bytes of zeros, which begin at a multiple of 64, or the system's
// error: where the disk is full, say. Disk is taken at once, a step ahead.
func (m *File) Take(n int) ([]byte, error) {
	if n < 0 || n > math.MaxInt-mostStep {
		return nil, fmt.Errorf("mapped: %d bytes", n)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.off {
		return nil, fmt.Errorf("mapped: the file is closed")
	}
	n = (n + line - 1) / line * line
	if n > len(m.rest) {
		step := max(int64(n), min(max(m.size/4, leastStep), mostStep))
		step = (step + leastStep - 1) / leastStep * leastStep
		part, err := m.f.extend(m.size, int(step))
		if err != nil {
			return nil, err
		}
		m.size += step
		m.parts, m.rest = append(m.parts, part), part
	}
	b := m.rest[:n:n]
	m.rest = m.rest[n:]
	return b, nil
}

// Bytes returns the size of the file.
func (m *File) Bytes() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.size
}

// Close gives the file back. Nothing that Take returned may be used any more.
func (m *File) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.off {
		return nil
	}
	m.off = true
	err := m.f.unmap(m.parts)
	m.parts, m.rest, m.size = nil, nil, 0
	return err
}

// Region cuts bytes into lists of numbers. A nil Region makes them of the heap's memory.
type Region struct{ rest []byte }

// NewRegion returns a region of bytes that begin at a multiple of 64.
func NewRegion(b []byte) *Region { return &Region{b} }

// RegionBytes is how many bytes lists of so many bytes take of a region.
func RegionBytes(lists ...int) (n int) {
	for _, b := range lists {
		n += (b + line - 1) / line * line
	}
	return n
}

// Float32s, Uint16s and Int8s return the next n numbers.
func (r *Region) Float32s(n int) []float32 { return cut[float32](r, n) }
func (r *Region) Uint16s(n int) []uint16   { return cut[uint16](r, n) }
func (r *Region) Int8s(n int) []int8       { return cut[int8](r, n) }

func cut[T float32 | uint16 | int8](r *Region, n int) []T {
	if r == nil || n == 0 {
		return kernel.Large[T](n)
	}
	var one T
	size := int(unsafe.Sizeof(one))
	b := r.rest[:n*size]
	r.rest = r.rest[RegionBytes(len(b)):]
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), n)
}
