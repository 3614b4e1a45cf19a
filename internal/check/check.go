// Package check makes the errors of the operators: one sentence that names the
// package, the argument, what it was and what it should be, matching a sentinel
// of the package.
package check

import (
	"fmt"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad/asm"
)

type message struct {
	kind error
	text string
}

func (m *message) Error() string { return m.text }
func (m *message) Unwrap() error { return m.kind }

// Errorf returns an error whose text is the format's and which matches kind.
func Errorf(kind error, format string, args ...any) error {
	return &message{kind, fmt.Sprintf(format, args...)}
}

// Matrix returns an error unless m is rows x cols (any number of rows, if rows
// is negative) and lies within its data. what says why cols is wanted.
func Matrix(kind error, pkg, name string, m blas32.General, rows, cols int, what string) error {
	switch {
	case rows >= 0 && m.Rows != rows:
		return Errorf(kind, "%s: %s has %d rows, want %d", pkg, name, m.Rows, rows)
	case m.Rows < 0:
		return Errorf(kind, "%s: %s has %d rows", pkg, name, m.Rows)
	case m.Cols != cols:
		return Errorf(kind, "%s: %s has %d columns, want %s = %d", pkg, name, m.Cols, what, cols)
	case m.Rows == 0 || cols == 0:
		return nil
	case m.Stride < cols:
		return Errorf(kind, "%s: %s has %d columns but a stride of %d", pkg, name, cols, m.Stride)
	case len(m.Data) < cols || (m.Rows > 1 && (len(m.Data)-cols)/(m.Rows-1) < m.Stride):
		return Errorf(kind, "%s: %s is %d x %d with stride %d but has only %d elements", pkg, name, m.Rows, cols, m.Stride, len(m.Data))
	}
	return nil
}

// Output returns an error unless dst is as Matrix wants and shares no element
// with in; with same, dst may be in itself.
func Output(kind error, pkg string, dst blas32.General, rows, cols int, what string, in blas32.General, same bool) error {
	if err := Matrix(kind, pkg, "dst", dst, rows, cols, what); err != nil {
		return err
	}
	if !asm.Overlap(dst, in) {
		return nil
	}
	if same && dst.Stride == in.Stride && &dst.Data[0] == &in.Data[0] {
		return nil
	}
	return Errorf(kind, "%s: dst shares elements with an input", pkg)
}

// Vector returns an error unless x has n elements.
func Vector(kind error, pkg, name string, x []float32, n int, what string) error {
	if len(x) != n {
		return Errorf(kind, "%s: %s has %d elements, want %s = %d", pkg, name, len(x), what, n)
	}
	return nil
}
