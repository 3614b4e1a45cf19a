package kernel

import (
	"fmt"

	"github.com/subquad/subquad/internal/mat"
	"gonum.org/v1/gonum/blas/blas32"
)

// NoKernels is what a function for kernels panics with in a build without them.
const NoKernels = "asm: no kernels in this build"

// Extent is the data from the first to the last element of m.
func Extent(m blas32.General) []float32 {
	if m.Rows <= 0 || m.Cols <= 0 {
		return nil
	}
	return m.Data[:(m.Rows-1)*m.Stride+m.Cols]
}

// CheckInto panics unless dst can take len(x) results computed from x.
func CheckInto(op string, dst, x []float32) {
	CheckLen(op, "dst", len(dst), len(x))
	if mat.OverlapVectors(dst, x) && &dst[0] != &x[0] {
		Panicf("%s: dst overlaps an input without being the same", op)
	}
}

// CheckLen panics unless a slice has exactly want elements.
func CheckLen(op, name string, got, want int) {
	if got != want {
		Panicf("%s: %s has %d elements, want %d", op, name, got, want)
	}
}

// CheckAtLeast panics unless a slice has want elements.
func CheckAtLeast(op, name string, got, want int) {
	if got < want {
		Panicf("%s: %s has %d elements, want at least %d", op, name, got, want)
	}
}

// Panicf panics with a formatted string.
func Panicf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// CheckMatrix panics unless m is a rows x cols matrix that lies within its data.
func CheckMatrix(op, name string, m blas32.General, rows, cols int) {
	if m.Rows != rows || m.Cols != cols {
		Panicf("%s: %s is %d x %d, want %d x %d", op, name, m.Rows, m.Cols, rows, cols)
	}
	if rows < 0 || cols < 0 || m.Stride < cols {
		Panicf("%s: %s is %d x %d with stride %d", op, name, rows, cols, m.Stride)
	}
	if rows == 0 || cols == 0 {
		return
	}
	if len(m.Data) < cols || (rows > 1 && (len(m.Data)-cols)/(rows-1) < m.Stride) {
		Panicf("%s: %s is %d x %d with stride %d but has only %d elements", op, name, rows, cols, m.Stride, len(m.Data))
	}
}
