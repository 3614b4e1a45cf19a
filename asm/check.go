package asm

import (
	"fmt"
	"unsafe"

	"gonum.org/v1/gonum/blas/blas32"
)

// chunk is how many elements one call of a kernel takes at the most: the Go
// scheduler cannot interrupt assembly. It is part of what a sum's rounding
// depends on.
const chunk = 8192

const noKernels = "asm: no kernels in this build"

// overlap tells whether a and b share elements.
func overlap(a, b []float32) bool {
	if len(a) == 0 || len(b) == 0 {
		return false
	}
	pa, pb := address(a), address(b)
	return pa < pb+4*uintptr(len(b)) && pb < pa+4*uintptr(len(a))
}

func address(a []float32) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(a))) }

// Overlap tells whether two matrices share elements. Matrices that stand side by
// side in the columns of one buffer, with its stride, share none; of two that
// interleave with different strides it is assumed that they do.
func Overlap(a, b blas32.General) bool {
	ea, eb := extent(a), extent(b)
	if !overlap(ea, eb) {
		return false
	}
	if a.Stride != b.Stride {
		return true
	}
	// How far a row of b begins behind a row of a, or behind its last element.
	behind := (int(address(eb)-address(ea)) / 4 % a.Stride)
	if behind < 0 {
		behind += a.Stride
	}
	return behind < a.Cols || behind+b.Cols > a.Stride
}

// extent is the data from the first to the last element of m.
func extent(m blas32.General) []float32 {
	if m.Rows <= 0 || m.Cols <= 0 {
		return nil
	}
	return m.Data[:(m.Rows-1)*m.Stride+m.Cols]
}

// checkInto panics unless dst can take len(x) results computed from x.
func checkInto(op string, dst, x []float32) {
	checkLen(op, "dst", len(dst), len(x))
	if overlap(dst, x) && &dst[0] != &x[0] {
		panicf("asm: %s: dst overlaps an input without being the same", op)
	}
}

func checkLen(op, name string, got, want int) {
	if got != want {
		panicf("asm: %s: %s has %d elements, want %d", op, name, got, want)
	}
}

// checkAtLeast panics unless a slice has want elements.
func checkAtLeast(op, name string, got, want int) {
	if got < want {
		panicf("asm: %s: %s has %d elements, want at least %d", op, name, got, want)
	}
}

func panicf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// checkMatrix panics unless m is a rows x cols matrix that lies within its data.
func checkMatrix(op, name string, m blas32.General, rows, cols int) {
	if m.Rows != rows || m.Cols != cols {
		panicf("asm: %s: %s is %d x %d, want %d x %d", op, name, m.Rows, m.Cols, rows, cols)
	}
	if rows < 0 || cols < 0 || m.Stride < cols {
		panicf("asm: %s: %s is %d x %d with stride %d", op, name, rows, cols, m.Stride)
	}
	if rows == 0 || cols == 0 {
		return
	}
	if len(m.Data) < cols || (rows > 1 && (len(m.Data)-cols)/(rows-1) < m.Stride) {
		panicf("asm: %s: %s is %d x %d with stride %d but has only %d elements", op, name, rows, cols, m.Stride, len(m.Data))
	}
}
