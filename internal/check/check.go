// Package check makes the errors of the operators: one sentence that names the
// package, the argument, what it was and what it should be, matching a sentinel
// of the package.
package check

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/subquad/subquad"
	"github.com/subquad/subquad/internal/mat"
)

// message is an error that says text and matches kind, a sentinel, with errors.Is.
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

// Caused is Errorf of what another error caused: its text ends with that error's, and it
// matches that error too.
func Caused(kind, cause error, format string, args ...any) error {
	return &caused{fmt.Sprintf(format, args...) + ": " + cause.Error(), [2]error{kind, cause}}
}

// caused is an error that matches two.
type caused struct {
	text string
	of   [2]error
}

func (c *caused) Error() string   { return c.text }
func (c *caused) Unwrap() []error { return c.of[:] }

// mostEmpty bounds the rows of a matrix without columns, which has no elements that would bound
// them: what goes through rows, or takes memory for each, would not end.
const mostEmpty = 1 << 20

// Matrix returns an error unless m is rows x cols (any number of rows, if rows
// is negative) and lies within its data. what says why cols is wanted.
func Matrix(kind error, pkg, name string, m blas32.General, rows, cols int, what string) error {
	switch {
	case rows >= 0 && m.Rows != rows:
		return Errorf(kind, "%s: %s has %d rows, want %d", pkg, name, m.Rows, rows)
	case m.Rows < 0:
		return Errorf(kind, "%s: %s has %d rows", pkg, name, m.Rows)
	case m.Cols < 0: // where cols is of another matrix, or this one's
		return Errorf(kind, "%s: %s has %d columns", pkg, name, m.Cols)
	case rows < 0 && cols == 0 && m.Rows > mostEmpty:
		return Errorf(kind, "%s: %s has %d rows without columns, want at most %d", pkg, name, m.Rows, mostEmpty)
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

// QKV returns an error that matches ErrShape unless q is [rows, heads*headDim], k [keys,
// kvHeads*headDim], with any number of keys where that is -1, and v [keys, kvHeads*valueDim].
func QKV(pkg string, q, k, v blas32.General, keys, heads, kvHeads, headDim, valueDim int) error {
	if err := Matrix(subquad.ErrShape, pkg, "q", q, -1, heads*headDim, "Heads*HeadDim"); err != nil {
		return err
	}
	if err := Matrix(subquad.ErrShape, pkg, "k", k, keys, kvHeads*headDim, "KVHeads*HeadDim"); err != nil {
		return err
	}
	return Matrix(subquad.ErrShape, pkg, "v", v, k.Rows, kvHeads*valueDim, "KVHeads*ValueDim")
}

// Output returns an error unless dst is as Matrix asks and shares no element
// with in; with same, dst may be in itself.
func Output(kind error, pkg string, dst blas32.General, rows, cols int, what string, in blas32.General, same bool) error {
	if err := Matrix(kind, pkg, "dst", dst, rows, cols, what); err != nil {
		return err
	}
	if !mat.Overlap(dst, in) || same && mat.Same(dst, in) {
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

// Offsets returns an error unless offsets, the first row of each sequence of a packed
// batch and at last the number of rows, begin with 0, do not run backwards and end with
// rows; sequences is how many there must be, or -1 for any number.
func Offsets(pkg, name string, offsets []int, rows, sequences int) error {
	if sequences < 0 {
		sequences = len(offsets) - 1
	}
	switch {
	case len(offsets) == 0 || len(offsets) != sequences+1:
		return Errorf(subquad.ErrCall, "%s: %s has %d elements, want one more than sequences = %d", pkg, name, len(offsets), max(sequences, 0))
	case offsets[0] != 0:
		return Errorf(subquad.ErrCall, "%s: %s begins with %d, want 0", pkg, name, offsets[0])
	}
	for i := 1; i < len(offsets); i++ {
		if offsets[i] < offsets[i-1] {
			return Errorf(subquad.ErrCall, "%s: %s runs backwards, from %d to %d at %d", pkg, name, offsets[i-1], offsets[i], i)
		}
	}
	if last := offsets[len(offsets)-1]; last != rows {
		return Errorf(subquad.ErrCall, "%s: %s ends with %d, want the number of rows = %d", pkg, name, last, rows)
	}
	return nil
}

// maxWorkers bounds goroutines, and the working memory that each of them has.
const maxWorkers = 1 << 16

// Workers returns an error that matches kind (ErrConfig for a Config's, ErrCall for a
// call's) unless n goroutines can be asked for.
func Workers(kind error, pkg string, n int) error {
	if n < 0 || n > maxWorkers {
		return Errorf(kind, "%s: Workers is %d, want 0 to %d", pkg, n, maxWorkers)
	}
	return nil
}

// Call returns an error unless a Run has a context and a call.
func Call(pkg string, ctx context.Context, given bool) error {
	switch {
	case ctx == nil:
		return Errorf(subquad.ErrCall, "%s: ctx is nil, want a context", pkg)
	case !given:
		return Errorf(subquad.ErrCall, "%s: call is nil", pkg)
	}
	return nil
}

// Stream returns an error, of the kind, where what is to be read or written, an io.Reader,
// io.ReaderAt or io.Writer, is nil.
func Stream(kind error, pkg, name string, stream any) error {
	if stream == nil {
		return Errorf(kind, "%s: the %s is nil", pkg, name)
	}
	return nil
}

// NilState is the error about a state that is nil.
func NilState(pkg, name string) error {
	return Errorf(subquad.ErrState, "%s: %s is nil, want one of NewState", pkg, name)
}

// Unmade is the error about a state that is the zero value of its type.
func Unmade(pkg string) error {
	return Errorf(subquad.ErrState, "%s: the state was not made by NewState", pkg)
}

// NoState is the error about a state of a call, got, that is nil or not an S.
func NoState[S any](pkg, name string, got any) error {
	var want S
	if _, ok := got.(S); ok || got == nil {
		return NilState(pkg, name)
	}
	return Errorf(subquad.ErrState, "%s: %s is a %T, want a %T of NewState", pkg, name, got, want)
}

// Wrap gives an error of a worker, as a panic in a callback, the package's name. The
// end of a context stays what it is.
func Wrap(ctx context.Context, pkg string, err error) error {
	if err == nil || err == ctx.Err() {
		return err
	}
	return fmt.Errorf("%s: %w", pkg, err)
}

// Named gives an error that came from an operator within an operator the name of the
// outer one's package in place of its own. The end of a context stays what it is.
func Named(pkg string, err error) error {
	c, two := err.(*caused)
	kind := errors.Unwrap(err)
	if kind == nil && !two {
		return err
	}
	_, text, _ := strings.Cut(err.Error(), ": ")
	if two {
		return &caused{pkg + ": " + text, c.of}
	}
	return &message{kind, pkg + ": " + text}
}

// Finite returns an error, of the kind, that names the first NaN or Inf of x.
func Finite(kind error, pkg, name string, x []float32) error {
	for i, v := range x {
		if v-v != 0 {
			return Errorf(kind, "%s: %s[%d] is %v, want a finite number", pkg, name, i, v)
		}
	}
	return nil
}

// Positive returns an error, of the kind, that names the first element of x that is not
// a positive finite number.
func Positive(kind error, pkg, name string, x []float32) error {
	for i, v := range x {
		if !(v > 0 && v <= math.MaxFloat32) {
			return Errorf(kind, "%s: %s[%d] is %v, want a positive number", pkg, name, i, v)
		}
	}
	return nil
}

// Product returns the product of sizes, or -1 where one is negative or the product is
// larger than most.
func Product(most int64, sizes ...int) int64 {
	n := int64(1)
	for _, size := range sizes {
		if size < 0 || size > 0 && n > most/int64(size) {
			return -1
		}
		n *= int64(size)
	}
	return n
}
